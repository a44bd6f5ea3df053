// Looks again every two seconds what became of a message, while somebody looks at the page.

const PAUSE_MS = 2000;
const place = document.getElementById("actors-fate");

async function lookAgain() {
    if (!document.hidden) {
        try {
            const response = await fetch(location.href, { credentials: "same-origin" });
            const page = new DOMParser().parseFromString(await response.text(), "text/html");
            const news = page.getElementById("actors-fate");
            if (response.ok && news) {
                place.replaceChildren(...news.childNodes);
                place.toggleAttribute("data-open", news.hasAttribute("data-open"));
            }
        } catch {
            // The server is away for a moment.
        }
    }
    await goOn();
}

async function goOn() {
    if (place.hasAttribute("data-open")) {
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        await lookAgain();
    }
}

goOn();
