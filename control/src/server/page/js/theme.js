// Light or dark before anything is drawn. No module, so that it runs first.
"use strict";
{
  const PLACE = "pilotfish-theme";
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;
  const kept = () => {
    const found = localStorage.getItem(PLACE);
    return THEMES.includes(found) ? found : "auto";
  };
  const use = (theme) => {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${theme}`;
  };
  use(kept());
  document.addEventListener("DOMContentLoaded", () => {
    use(kept());
    document.getElementById("theme").addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(kept()) + 1) % THEMES.length];
      localStorage.setItem(PLACE, next);
      use(next);
    });
  });
}
