/** The layers, each with what made it and what it did. */

import type { LayerMessage } from "../../src/explore/messages.js";
import { count, humanSize, make } from "./dom.js";
import { layerColor } from "./treemap.js";

/** Draws the list into `element`. */
export function drawLayers(
  element: HTMLElement,
  layers: readonly LayerMessage[],
  chosen: number,
  onChoose: (layer: number) => void,
): void {
  const largest = Math.max(1, ...layers.map(({ bytes }) => bytes));
  element.replaceChildren(
    ...layers.map((layer, number) => {
      const bar = make("i");
      bar.style.width = `${(100 * layer.bytes) / largest}%`;
      bar.style.background = layerColor(number);
      const counts = make(
        "div",
        { className: "counts" },
        make("span", { className: "A", textContent: `+${count(layer.added)}` }),
        make("span", { className: "C", textContent: `~${count(layer.changed)}` }),
        make("span", { className: "D", textContent: `−${count(layer.removed)}` }),
      );
      const item = make(
        "div",
        { className: "layer", title: `${layer.digest}\n${layer.command}` },
        make(
          "div",
          { className: "top" },
          make("span", { textContent: `Layer ${number + 1}` }),
          make("span", { textContent: humanSize(layer.bytes) }),
        ),
        make("div", { className: "bar" }, bar),
        counts,
        make("div", { className: "command", textContent: layer.command || "(no history)" }),
      );
      item.setAttribute("aria-selected", String(number === chosen));
      item.onclick = () => onChoose(number);
      return item;
    }),
  );
  element.children[chosen]?.scrollIntoView({ block: "nearest" });
}
