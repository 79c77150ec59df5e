// What of a page a person may fail to see: each text with its size and its contrast, what is cut off and does not
// say so, and shapes too small to be seen. Sizes are those on the screen, after any scaling.
(() => {
  const rgba = (text) => {
    const parts = text.match(/[\d.]+/g).map(Number);
    return parts.length === 4 ? parts : [...parts, 1];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const isSeen = (e) => e.checkVisibility({ checkVisibilityCSS: true }) && e.getClientRects().length > 0;
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement;
    if (!node.data.trim() || ["TITLE", "title", "STYLE", "SCRIPT"].includes(e.tagName) || !isSeen(e)) continue;
    const style = getComputedStyle(e);
    const svg = e.closest("svg");
    const scale = svg ? svg.getScreenCTM().a : 1;
    const colour = rgba(svg ? style.fill : style.color);
    texts.push({ text: node.data.trim().slice(0, 30), px: parseFloat(style.fontSize) * scale,
      contrast: contrast(colour, behind(e)) });
  }
  const cut = [];
  for (const e of document.querySelectorAll("body *")) {
    const style = getComputedStyle(e);
    if (!isSeen(e) || e.closest("svg, thead") || style.display === "inline") continue;
    if (e.scrollHeight > e.clientHeight + 2 && style.overflowY !== "visible") cut.push(["height", e.className]);
    const isSideways = e.scrollWidth > e.clientWidth + 1 && style.overflowX !== "visible";
    const says = e.tabIndex === 0 && style.backgroundImage.includes("gradient") && e.previousElementSibling;
    if (isSideways && !(says && isSeen(says))) cut.push(["width", e.className, e.textContent.trim().slice(0, 40)]);
  }
  const unseen = [...document.querySelectorAll("svg.bar")].filter(isSeen).filter((bar) => {
    const rects = [...bar.querySelectorAll("rect")];
    const wide = rects.reduce((sum, rect) => sum + rect.getBoundingClientRect().width, 0);
    return rects.length && wide < 1.5;
  }).length;
  const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return { texts, cut, unseen, theme, width: document.documentElement.scrollWidth };
})();
