// The pointer on the timeline: where it is on the track, and a gesture followed until the button is let go.

const [STARTS_AT, EDGE, SCROLL_EVERY, SCROLL_PART] = [4, 18, 40, 0.03] // pixels, pixels, milliseconds, part of what is shown

// Where the pointer is: `frame` with fraction, `off` the pixels above, below or beside the track.
export function pointAt({ view, state, zoomed }, event) {
  const lane = view.lane.getBoundingClientRect()
  const box = view.track.getBoundingClientRect()
  const frame = ((event.clientX - lane.left) / lane.width) * state.frames
  const scale = box.height / view.track.offsetHeight
  // While zoomed the sides are where the track scrolls on.
  const beside = zoomed ? 0 : Math.max(box.left - event.clientX, event.clientX - box.right, 0) - 20 * scale
  const off = Math.max(box.top - event.clientY, event.clientY - box.bottom, beside, 0) / scale
  return { frame, off }
}

// Follow the pointer until it is let go: move(event), then drop(event, moved), or cancel() on Escape. Other keys wait till
// then: Delete would take away the keyframe that is being dragged. With `scrolls` an editor, its track scrolls at the edges.
export function follow(event, ended, { move, drop, cancel, scrolls }) {
  const gesture = new AbortController()
  const options = { signal: AbortSignal.any([gesture.signal, ended]), capture: true }
  let [moved, latest] = [false, event]
  const timer = scrolls && setInterval(() => moved && scrollAtEdge(scrolls, latest) && move(latest), SCROLL_EVERY)
  options.signal.addEventListener('abort', () => clearInterval(timer))
  const finish = (act, last) => {
    gesture.abort()
    act?.(last, moved)
  }
  window.addEventListener('pointermove', (next) => {
    if (next.pointerId !== event.pointerId) return
    latest = next
    moved ||= Math.hypot(next.clientX - event.clientX, next.clientY - event.clientY) >= STARTS_AT
    if (moved) move(next)
  }, options)
  window.addEventListener('pointerup', (last) => last.pointerId === event.pointerId && finish(drop, last), options)
  window.addEventListener('pointercancel', () => finish(cancel), options)
  window.addEventListener('keydown', (key) => {
    key.preventDefault()
    key.stopPropagation()
    if (key.key === 'Escape') finish(cancel)
  }, options)
}

// Scroll on where the pointer is at an end of a zoomed track. Returns whether there was more to show.
function scrollAtEdge(editor, event) {
  if (!editor.zoomed) return false
  const box = editor.view.track.getBoundingClientRect()
  const edge = (EDGE * box.height) / editor.view.track.offsetHeight
  const way = event.clientX < box.left + edge ? -1 : event.clientX > box.right - edge ? 1 : 0
  const { first, count } = editor.span
  if (way) editor.showFrom(first + way * SCROLL_PART * count)
  return editor.span.first !== first
}
