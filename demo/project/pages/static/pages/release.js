// Keeps "Serving now" true while the page is open, so that a deploy can be watched.

const list = document.querySelector("[data-release-url]");

async function refresh() {
  if (document.hidden) return;
  let now;
  try {
    const answer = await fetch(list.dataset.releaseUrl, { cache: "no-store" });
    if (!answer.ok) return;
    now = await answer.json();
  } catch {
    return; // the next round asks again
  }
  for (const place of list.querySelectorAll("[data-show]")) {
    const text = now[place.dataset.show] || "not deployed";
    if (place.textContent === text) continue;
    place.textContent = text;
    place.classList.remove("changed");
    void place.offsetWidth; // restarts the animation
    place.classList.add("changed");
  }
}

setInterval(refresh, 2000);
document.addEventListener("visibilitychange", refresh);
