// What tests/browser.py asks a page, and a picture, in the browser.

// Whether a frame within the text scrolls, and not the text as a whole.
function scrolls(element, text) {
  for (let e = element; e && e !== text; e = e.parentElement) {
    const free = ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
    if (free && e.scrollWidth > e.clientWidth + 1) return true;
  }
  return false;
}

// The words of a cell, where a hyphen or a slash ends one too, each with the lines it stands on.
// measurePage lets a word of 40 letters be broken: it is a checksum.
function* wordsOf(cell) {
  const range = document.createRange();
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    for (const found of node.data.matchAll(/[^\s\-\/\u200b\u00ad]+[\-\/]?/g)) {
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      const boxes = [...range.getClientRects()].filter((box) => box.width > 0);
      yield [found[0], new Set(boxes.map((box) => Math.round(box.top)))];
    }
  }
}

function measurePage() {
  const text = document.querySelector("article") ?? document.body;
  const root = document.documentElement;
  const faults = [];
  for (let e = text; e; e = e.parentElement)
    if (e.scrollWidth > innerWidth + 1) faults.push(`${e.localName} is ${e.scrollWidth} pixels wide`);
  for (const element of text.querySelectorAll("*")) {
    const { width, right } = element.getBoundingClientRect();
    if (width && right > innerWidth + 1 && !scrolls(element, text))
      faults.push(`<${element.localName} class="${element.className}"> ends at ${right}`);
  }
  for (const cell of text.querySelectorAll("td, th")) {
    const all = new Set();
    let letters = 0;
    for (const [word, tops] of wordsOf(cell)) {
      if (tops.size > 1 && word.length < 40) faults.push(`a table breaks the word ${word}`);
      for (const top of tops) all.add(top);
      letters += word.length + 1;
    }
    // code on a line stands some pixels lower than the words beside it
    const lines = [...all].sort((a, b) => a - b).filter((top, i, sorted) => !(top - sorted[i - 1] < 7));
    if (lines.length >= 4 && letters / lines.length < 10)
      faults.push(`hardly a word in a line: ${cell.innerText.slice(0, 60)}`);
  }
  const pictures = [...text.querySelectorAll("img")]
    .filter((picture) => picture.clientWidth > 64)
    .map((picture) => ({ address: picture.src, width: picture.clientWidth }));
  return { faults, pictures, height: root.scrollHeight };
}

// Of an SVG that is shown so wide: the height of its smallest text, and what text is cut off.
function measurePicture([content, width]) {
  const frame = document.createElement("div");
  frame.innerHTML = content.slice(content.indexOf("<svg"));
  const picture = frame.querySelector("svg");
  picture.setAttribute("style", `width: ${width}px; height: auto; max-width: none`);
  document.body.append(frame);
  const { right } = picture.getBoundingClientRect();
  let smallest = 99;
  const cut = [];
  for (const text of picture.querySelectorAll("text, tspan")) {
    if (!text.textContent.trim()) continue;
    const { a, b } = text.getScreenCTM();
    smallest = Math.min(smallest, parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b));
    if (text.getBoundingClientRect().right > right + 1) cut.push(text.textContent);
  }
  frame.remove();
  return { smallest, cut };
}
