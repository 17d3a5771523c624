// Zoom and scroll of the track: which frames it shows, and the wheel, the bar and the keys that change that.

import { h, keepInStep } from './dom.js'
import { follow } from './timeline_pointer.js'
import { say } from './words.js'

const LEAST = 8 // frames that the track shows at least
const [STEP, WHEEL, NOTCH, MARGIN] = [1.5, 0.005, 50, 0.06] // of a key, of a pixel of the wheel, pixels, part of what is shown
const LINE = 16 // pixels that a line of the wheel stands for

// The frames that are shown, {first, count} with fractions, of what was asked for; null asks for all.
export function spanOf(asked, frames) {
  const count = Math.min(frames, Math.max(LEAST, asked?.count ?? frames))
  return { first: Math.min(frames - count, Math.max(0, asked?.first ?? 0)), count }
}

// `span` enlarged by `factor`, with frame `around` staying where it is.
export function zoomedAround({ first, count }, frames, factor, around) {
  const next = spanOf({ count: count / factor }, frames).count
  return spanOf({ first: around - ((around - first) * next) / count, count: next }, frames)
}

// `span` scrolled as little as needed to show frames `from` to `to` with some room beside them.
export function revealing(span, frames, from, to = from + 1) {
  const room = MARGIN * span.count
  const late = Math.max(span.first, to + room - span.count)
  return spanOf({ ...span, first: Math.min(late, from - room) }, frames)
}

export function makeBar() {
  const marks = h('div', { class: 'os-bar-marks' })
  const thumb = h('div', { class: 'os-bar-thumb', role: 'scrollbar', tabindex: '0', 'aria-orientation': 'horizontal',
    'aria-valuemin': '0', 'aria-label': say('Part of the clip that the track shows'),
    title: say('Drag to scroll, drag an end to zoom, double-click to see the whole clip') },
  h('i', { class: 'os-bar-end', 'data-end': 'left' }), h('i', { class: 'os-bar-end', 'data-end': 'right' }))
  const element = h('div', { class: 'os-bar' }, marks, thumb)
  const button = (act, text, title) => h('button', { type: 'button', 'data-zoom': act, 'aria-label': title, title, text })
  const buttons = h('div', { class: 'os-zoom' },
    button('out', '−', say('Zoom out (−)')), button('in', '+', say('Zoom in (+, or Ctrl and the wheel)')),
    button('fit', say('Fit'), say('Show the whole clip (0)')))

  function paint({ frames, seen }, { first, count }, selected) {
    thumb.style.left = `${(100 * first) / frames}%`
    thumb.style.width = `${(100 * count) / frames}%`
    thumb.setAttribute('aria-valuemax', Math.round(frames - count))
    thumb.setAttribute('aria-valuenow', Math.round(first))
    const from = Math.round(first)
    thumb.setAttribute('aria-valuetext', say('frames {from} to {to}', { from, to: Math.max(from, Math.round(first + count) - 1) }))
    element.classList.toggle('os-bar-whole', count >= frames)
    buttons.children[0].disabled = buttons.children[2].disabled = count >= frames
    buttons.children[1].disabled = count <= Math.min(LEAST, frames)
    const shown = seen.filter((one) => one.shown !== null)
    keepInStep(marks, shown, () => h('i'), (mark, one) => {
      mark.style.left = `${(100 * (one.shown + 0.5)) / frames}%`
      mark.classList.toggle('os-selected', selected.includes(one.index))
    })
  }
  return { element, thumb, buttons, paint }
}

// Listen for what zooms and scrolls. `on` adds a listener that ends with `ended`.
export function listenToZoom(editor, on, ended) {
  const { view } = editor
  const { bar } = view
  // Before the page's own listeners, which take every wheel over a Vue node for the canvas.
  window.addEventListener('wheel', (event) => wheeled(editor, event), { capture: true, passive: false, signal: ended })
  on(bar.element, 'pointerdown', (event) => pressedBar(editor, event, ended))
  on(bar.thumb, 'dblclick', () => editor.showAll())
  on(bar.buttons, 'click', (event) => {
    const act = event.target.closest('button')?.dataset.zoom
    if (act) zoomBy(editor, act)
    if (act && event.target.disabled) view.track.focus({ preventScroll: true })
  })
}

function zoomBy(editor, act) {
  if (act === 'fit') return editor.showAll()
  return editor.zoomAround(act === 'in' ? STEP : 1 / STEP, editor.lookedAt())
}

// + and - zoom around what has the focus, 0 shows all; arrows and paging on the bar scroll. Returns whether it was one.
export function keyOfZoom(editor, { key, target }) {
  const act = { '+': 'in', '=': 'in', '-': 'out', _: 'out', 0: 'fit' }[key]
  if (act) zoomBy(editor, act)
  if (act || target !== editor.view.bar.thumb) return Boolean(act)
  const { first, count } = editor.span
  const ways = { ArrowLeft: first - count / 10, ArrowRight: first + count / 10, PageUp: first - count, PageDown: first + count,
    Home: 0, End: editor.state.frames }
  if (!(key in ways)) return false
  editor.showFrom(ways[key])
  return true
}

function wheeled(editor, event) {
  const { view, state } = editor
  if (!view.stage.contains(event.target) || state.blocked) return
  const pixels = (delta) => delta * (event.deltaMode ? LINE : 1)
  const zooms = event.ctrlKey || event.metaKey
  const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : event.shiftKey ? event.deltaY : 0
  if (!zooms && !(editor.zoomed && sideways)) return
  event.preventDefault()
  event.stopImmediatePropagation()
  const box = view.track.getBoundingClientRect()
  const { first, count } = editor.span
  if (zooms) {
    const turned = Math.min(NOTCH, Math.max(-NOTCH, pixels(event.deltaY)))
    editor.zoomAround(Math.exp(-WHEEL * turned), first + (count * (event.clientX - box.left)) / box.width)
  } else editor.showFrom(first + (count * pixels(sideways)) / box.width)
}

// Drag the bar's thumb to scroll, an end of it to zoom; a press beside it brings it there.
function pressedBar(editor, event, ended) {
  if (event.button !== 0 || editor.view.root.classList.contains('os-blocked')) return
  event.preventDefault()
  event.stopPropagation()
  const { bar } = editor.view
  bar.thumb.focus({ preventScroll: true })
  const box = bar.element.getBoundingClientRect()
  const { frames } = editor.state
  const frameAt = (point) => ((point.clientX - box.left) / box.width) * frames
  if (!event.target.closest('.os-bar-thumb')) editor.showFrom(frameAt(event) - editor.span.count / 2)
  const before = editor.span
  const { end } = event.target.dataset
  const last = before.first + before.count
  follow(event, ended, {
    move(next) {
      const by = frameAt(next) - frameAt(event)
      if (end === 'left') {
        const first = Math.min(last - Math.min(LEAST, frames), Math.max(0, before.first + by))
        editor.show({ first, count: last - first })
      } else if (end === 'right') editor.show({ first: before.first, count: Math.min(frames - before.first, before.count + by) })
      else editor.showFrom(before.first + by)
    },
    cancel: () => editor.show(before),
  })
}
