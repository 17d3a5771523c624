// Small helpers for building the displays: elements, lists kept in step with data, and DOM widgets of a node.

import { app } from '../../scripts/app.js'

// The stylesheet of all displays, wanted before the first of them.
export function addStyle() {
  const link = document.createElement('link')
  link.rel = 'stylesheet'
  link.href = new URL('./opensora.css', import.meta.url).href
  document.head.append(link)
}

// An element: attributes by name, `class`, `text`, children after.
export function h(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  if (text !== undefined) element.textContent = text
  element.append(...children)
  return element
}

// Call `act` after the node's own handler of that name.
export function after(node, name, act) {
  const before = node[name]
  node[name] = function (...values) {
    const result = before?.apply(this, values)
    act(...values)
    return result
  }
}

// Make `parent` hold one child an item: those that exist are kept, so that focus and pictures survive.
export function keepInStep(parent, items, create, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove()
  items.forEach((item, index) => {
    if (index === parent.children.length) parent.append(create(index))
    update(parent.children[index], item, index)
  })
}

// How a widget of HTML behaves on a node. `height()` is what it needs at least, in graph units.
export function htmlOptions(height, more = {}) {
  return { hideOnZoom: false, margin: 6, getMinHeight: height, ...more }
}

// A widget of HTML that is never saved and never sent, and belongs to the node alone: panels leave it out.
export function addDisplay(node, name, element, height, { onDraw, grows = false } = {}) {
  const options = htmlOptions(height, { serialize: false, hideInPanel: true, onDraw })
  if (!grows) options.getMaxHeight = height
  const widget = node.addDOMWidget(name, 'opensora', element, options)
  widget.serialize = false
  settle(widget, element)
  return widget
}

// What every widget of HTML of ours needs: it stays as wide as its node, and leaves to the canvas what is the canvas's.
export function settle(widget, element) {
  // The properties panel writes its own width into each widget that it shows.
  Object.defineProperty(widget, 'width', { get: () => undefined, set() {}, configurable: true })
  element.dataset.display = widget.name
  passToCanvas(element)
}

// Undo builds nodes anew, and the page's Vue nodes go on showing the old node's element: put ours in its place.
export function showInstead(node) {
  if (!window.LiteGraph?.vueNodesMode) return
  for (const { element } of node.widgets ?? []) {
    if (!element?.dataset?.display || element.isConnected) continue
    document.querySelector(`[data-node-id="${node.id}"] [data-display="${element.dataset.display}"]`)?.replaceWith(element)
  }
}

// Wheel and middle button belong to the canvas, as over every other part of a node.
function passToCanvas(element) {
  const unlessVue = (act) => (event) => !window.LiteGraph?.vueNodesMode && act(event)
  element.addEventListener('wheel', unlessVue((event) => {
    event.preventDefault()
    app.canvas.processMouseWheel(event)
  }), { passive: false })
  element.addEventListener('pointerdown', unlessVue((event) => event.button === 1 && app.canvas.processMouseDown(event)))
  element.addEventListener('pointermove', unlessVue((event) => event.buttons & 4 && app.canvas.processMouseMove(event)))
  element.addEventListener('pointerup', unlessVue((event) => event.button === 1 && app.canvas.processMouseUp(event)))
}
