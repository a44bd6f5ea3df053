// Renews the part of a page that changes, every few seconds, while somebody looks at it.

const live = document.getElementById("actors-live");
const stale = document.getElementById("actors-stale");
const pauseMs = Number(live.dataset.seconds) * 1000;
let timer;
let shown;

async function renew() {
    try {
        // A redirect would be the page of the login.
        const response = await fetch(live.dataset.url, {
            credentials: "same-origin",
            redirect: "error",
        });
        if (!response.ok) {
            throw new Error(response.statusText);
        }
        const html = await response.text();
        // What has not changed is not read out again.
        if (html !== shown) {
            replace(html);
            shown = html;
        }
        stale.hidden = true;
    } catch {
        stale.hidden = false;
    }
    schedule();
}

function replace(html) {
    const focused = document.activeElement?.id;
    const scrolled = [...live.querySelectorAll(".actors-scroll")].map((each) => each.scrollLeft);
    const page = new DOMParser().parseFromString(html, "text/html");
    live.replaceChildren(...page.body.childNodes);
    live.querySelectorAll(".actors-scroll").forEach((each, number) => {
        each.scrollLeft = scrolled[number] ?? 0;
    });
    if (focused) {
        document.getElementById(focused)?.focus({ preventScroll: true });
    }
}

function schedule() {
    clearTimeout(timer);
    if (!document.hidden && !live.querySelector("[data-final]")) {
        timer = setTimeout(renew, pauseMs);
    }
}

document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden && !live.querySelector("[data-final]")) {
        renew();
    }
});

schedule();
