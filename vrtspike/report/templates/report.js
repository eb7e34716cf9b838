"use strict";

// Light or dark: the system's choice until the reader makes another.
document.querySelector(".theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

for (const compare of document.querySelectorAll(".compare")) {
  const slider = compare.querySelector("input");
  slider.addEventListener("input", () => compare.style.setProperty("--split", slider.value + "%"));

  // Put another image on one side.
  for (const select of compare.querySelectorAll("select")) {
    const layer = compare.querySelector(".layer." + select.dataset.side);
    let shown = [...layer.classList].find((name) => name.startsWith("im-"));
    const show = () => {
      layer.classList.replace(shown, select.value);
      shown = select.value;
    };
    show();
    select.addEventListener("change", show);
  }

  // Show left and right in turn, in place.
  const flicker = compare.querySelector(".flicker");
  let timer = null;
  flicker.addEventListener("click", () => {
    if (timer === null) {
      compare.classList.add("blink");
      timer = setInterval(() => compare.classList.toggle("other"), 600);
    } else {
      clearInterval(timer);
      timer = null;
      compare.classList.remove("blink", "other");
    }
    flicker.setAttribute("aria-pressed", String(timer !== null));
  });
}
