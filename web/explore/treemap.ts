/**
 * Where the bytes are: every file is an area as large as its size, coloured by the layer that brought it.
 *
 * @see M. Bruls, K. Huizing, J. van Wijk, Squarified Treemaps, 2000
 */

import { humanSize, make } from "./dom.js";
import type { Panel } from "./panel.js";
import { DIRECTORY, type Tree } from "./tree.js";

interface Area {
  readonly node: number;
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Directories with less room are drawn as one area. */
const SMALLEST_SIDE = 7;
const TITLE_HEIGHT = 15;
const TITLE_WIDTH = 46;

/** A colour for a layer, in both themes. */
export function layerColor(layer: number): string {
  return `hsl(${(208 + layer * 137.5) % 360} 48% 46%)`;
}

/** The panel "Treemap". */
export class Treemap implements Panel {
  readonly #tree: Tree;
  readonly #element: HTMLElement;
  readonly #canvas = make("canvas");
  readonly #onChoose: (node: number) => void;
  readonly #onHover: (text: string) => void;
  readonly #observer = new ResizeObserver(() => this.refresh());
  #root = 0;
  #areas: Area[] = [];

  constructor(
    element: HTMLElement,
    tree: Tree,
    onChoose: (node: number) => void,
    onHover: (text: string) => void,
  ) {
    this.#tree = tree;
    this.#element = element;
    this.#onChoose = onChoose;
    this.#onHover = onHover;
    element.replaceChildren(this.#canvas);
    this.#canvas.onclick = (event) => this.#click(event);
    this.#canvas.onmousemove = (event) => this.#hover(event);
    this.#observer.observe(element);
    this.refresh();
  }

  refresh(): void {
    const { clientWidth: width, clientHeight: height } = this.#element;
    const scale = window.devicePixelRatio;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    this.#canvas.style.width = `${width}px`;
    this.#canvas.style.height = `${height}px`;
    const context = this.#canvas.getContext("2d");
    if (context === null) return;
    context.scale(scale, scale);
    context.clearRect(0, 0, width, height);
    context.font = "11px system-ui, sans-serif";
    this.#areas = [];
    this.#draw(context, { node: this.#root, x: 0, y: 0, width, height });
  }

  onKey(event: KeyboardEvent): boolean {
    if (event.key !== "Backspace" && event.key !== "ArrowLeft") return false;
    this.#zoom(Math.max(0, this.#tree.message.parents[this.#root]!));
    return true;
  }

  close(): void {
    this.#observer.disconnect();
  }

  #zoom(node: number): void {
    this.#root = node;
    this.refresh();
    this.#onHover(`${this.#tree.path(node)}   ${humanSize(this.#tree.sizes[node]!)}`);
  }

  #draw(context: CanvasRenderingContext2D, area: Area): void {
    const { node, x, y, width, height } = area;
    this.#areas.push(area);
    const isDirectory = this.#tree.kinds[node] === DIRECTORY;
    context.fillStyle = isDirectory
      ? "rgb(128 128 128 / 16%)"
      : layerColor(this.#tree.origins[node]!);
    context.fillRect(x, y, Math.max(0.5, width - 1), Math.max(0.5, height - 1));
    const hasTitle = width > TITLE_WIDTH && height > TITLE_HEIGHT;
    if (hasTitle) this.#title(context, area, isDirectory);
    if (!isDirectory || Math.min(width, height) < SMALLEST_SIDE) {
      if (isDirectory) {
        context.fillStyle = "rgb(128 128 128 / 45%)";
        context.fillRect(x, y, Math.max(0.5, width - 1), Math.max(0.5, height - 1));
      }
      return;
    }
    const top = hasTitle ? TITLE_HEIGHT : 1;
    const inner = { x: x + 2, y: y + top, width: width - 4, height: height - top - 2 };
    if (inner.width < 2 || inner.height < 2) return;
    for (const child of this.#layOut(node, inner)) this.#draw(context, child);
  }

  #title(context: CanvasRenderingContext2D, area: Area, isDirectory: boolean): void {
    const { node, x, y, width } = area;
    const name = node === 0 ? "/" : this.#tree.message.names[node]!;
    context.save();
    context.beginPath();
    context.rect(x, y, width - 3, area.height);
    context.clip();
    const isRoot = node === this.#root;
    context.fillStyle = isDirectory ? getComputedStyle(this.#element).color : "#fff";
    const text = isRoot ? this.#tree.path(node) : name;
    context.fillText(`${text}  ${humanSize(this.#tree.sizes[node]!)}`, x + 4, y + 11);
    context.restore();
  }

  /** Rows of areas that are as square as can be. */
  #layOut(node: number, room: Omit<Area, "node">): Area[] {
    const { sizes } = this.#tree;
    const nodes = this.#tree.children[node]!.filter((child) => sizes[child]! > 0);
    nodes.sort((a, b) => sizes[b]! - sizes[a]!);
    const total = nodes.reduce((sum, child) => sum + sizes[child]!, 0);
    const scale = (room.width * room.height) / total;
    const areas: Area[] = [];
    let { x, y, width, height } = room;
    for (let start = 0; start < nodes.length; ) {
      const side = Math.min(width, height);
      const end = rowEnd(nodes, start, side, (child) => sizes[child]! * scale);
      const row = nodes.slice(start, end);
      const rowArea = row.reduce((sum, child) => sum + sizes[child]! * scale, 0);
      const thickness = side === 0 ? 0 : rowArea / side;
      let along = 0;
      for (const child of row) {
        const length = thickness === 0 ? 0 : (sizes[child]! * scale) / thickness;
        areas.push(
          width >= height
            ? { node: child, x, y: y + along, width: thickness, height: length }
            : { node: child, x: x + along, y, width: length, height: thickness },
        );
        along += length;
      }
      if (width >= height) {
        x += thickness;
        width -= thickness;
      } else {
        y += thickness;
        height -= thickness;
      }
      start = end;
    }
    return areas;
  }

  #at(event: MouseEvent): number | undefined {
    const { offsetX, offsetY } = event;
    return this.#areas.findLast(
      ({ x, y, width, height }) =>
        offsetX >= x && offsetX < x + width && offsetY >= y && offsetY < y + height,
    )?.node;
  }

  #hover(event: MouseEvent): void {
    const node = this.#at(event);
    if (node === undefined) return;
    const layer = this.#tree.origins[node]! + 1;
    this.#onHover(
      `${this.#tree.path(node)}   ${humanSize(this.#tree.sizes[node]!)}   layer ${layer}`,
    );
  }

  /** A file is chosen; of what is below a directory, the part of it that was met is shown alone. */
  #click(event: MouseEvent): void {
    const node = this.#at(event);
    if (node === undefined) return;
    this.#onChoose(node);
    if (node === this.#root) {
      this.#zoom(Math.max(0, this.#tree.message.parents[node]!));
      return;
    }
    let below = node;
    while (this.#tree.message.parents[below] !== this.#root)
      below = this.#tree.message.parents[below]!;
    if (this.#tree.kinds[below] === DIRECTORY) this.#zoom(below);
  }
}

/** Adds to a row as long as that makes its areas squarer. */
function rowEnd(
  nodes: readonly number[],
  start: number,
  side: number,
  areaOf: (node: number) => number,
): number {
  let sum = 0;
  let worst = Number.POSITIVE_INFINITY;
  const largest = areaOf(nodes[start]!);
  for (let end = start; end < nodes.length; end++) {
    const area = areaOf(nodes[end]!);
    sum += area;
    const ratio = Math.max(
      (side * side * largest) / (sum * sum),
      (sum * sum) / (side * side * area),
    );
    if (ratio > worst) return end;
    worst = ratio;
  }
  return nodes.length;
}
