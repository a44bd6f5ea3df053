// Goes on to the next page of a long operation by itself, until somebody stops it.

const form = document.querySelector(".actors-progress");
const pause = setTimeout(() => form.requestSubmit(), 300);

form.addEventListener("submit", () => clearTimeout(pause));
