// Times: UTC, local, or how long ago. All works without.
(() => {
  const modes = ["UTC", "Local", "Ago"];
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const local = new Intl.DateTimeFormat("sv", { dateStyle: "short", timeStyle: "medium" });
  const keep = (value) => { try { return value ? localStorage.setItem("times", value) : localStorage.getItem("times"); } catch { return null; } };
  let mode = modes.includes(keep()) ? keep() : "UTC";
  const text = (date) => {
    if (mode === "Local") return local.format(date);
    const s = (date - Date.now()) / 1000;
    const [unit, size] = units.find(([, size]) => Math.abs(s) >= size) || units[3];
    return ago.format(Math.trunc(s / size), unit);
  };
  const show = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      time.dataset.utc ??= time.textContent;
      const shown = mode === "UTC" ? time.dataset.utc : text(new Date(time.dateTime));
      if (time.textContent !== shown) time.textContent = shown;
    }
  };
  const choice = document.querySelector(".time-choice");
  const said = document.querySelector(".as-chosen");
  const all = () => {
    if (choice) choice.textContent = `Times: ${mode}`;
    if (said) said.textContent = mode === "UTC" ? "" : `, shown as ${mode === "Ago" ? "how long ago" : "your local time"}`;
    show(document);
  };
  if (choice) {
    choice.hidden = false;
    choice.addEventListener("click", () => { mode = modes[(modes.indexOf(mode) + 1) % 3]; keep(mode); all(); });
  }
  all();
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest" });
  const stale = document.querySelector("#stale");
  for (const [on, hide] of [["error", false], ["after:connection", true]])
    document.addEventListener(`htmx:sse:${on}`, () => { if (stale) stale.hidden = hide; });
  document.addEventListener("htmx:after:swap", all);
  setInterval(() => mode === "Ago" && show(document), 10000);
})();
