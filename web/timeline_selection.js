// Which keyframes are selected: by a press, with shift and ctrl, and by a box drawn on the empty part of their lane.

import { follow, pointAt } from './timeline_pointer.js'

const adds = (event) => event.shiftKey || event.ctrlKey || event.metaKey

// Select by a press on keyframe `index`. Returns whether it can be dragged now, which one that was taken out cannot.
export function pressSelects(editor, event, index) {
  const { selected, anchor } = editor.ui
  const has = selected.includes(index)
  if (event.ctrlKey || event.metaKey) {
    editor.select(has ? selected.filter((each) => each !== index) : [...selected, index])
    if (has) editor.view.focusKeyframe(editor.ui.selected.at(-1) ?? null)
    return !has
  }
  if (event.shiftKey && selected.length) {
    const { seen } = editor.state
    const [from, to] = [seen[anchor]?.shown ?? seen[selected[0]].shown, seen[index].shown].sort((a, b) => a - b)
    const between = seen.filter((one) => one.shown !== null && one.shown >= from && one.shown <= to)
    editor.select(union(selected, between.map((one) => one.index)), anchor ?? index)
  } else if (!has) editor.select([index])
  return true
}

// One of several that was pressed and not dragged is then selected alone.
export function releaseSelects(editor, event, index) {
  if (adds(event)) return
  editor.select([index])
  editor.view.focusKeyframe(index)
}

// Select what a box touches; with shift or ctrl in addition. A press that draws none moves the playhead.
export function dragBox(editor, event, ended) {
  const { view } = editor
  const before = adds(event) ? editor.ui.selected : []
  view.track.focus({ preventScroll: true })
  const start = pointAt(editor, event).frame
  const heightAt = ({ clientY }, box) => Math.min(1, Math.max(0, (clientY - box.top) / box.height))
  const lane = view.keys.getBoundingClientRect()
  const top = heightAt(event, lane)
  const end = () => (view.box.style.display = 'none')
  follow(event, ended, {
    scrolls: editor,
    move(next) {
      const box = view.keys.getBoundingClientRect()
      const [left, right] = [start, pointAt(editor, next).frame].sort((a, b) => a - b)
      const [upper, lower] = [top, heightAt(next, box)].sort((a, b) => a - b)
      const { frames } = editor.state
      Object.assign(view.box.style, {
        display: 'block', left: `${(100 * left) / frames}%`, width: `${(100 * (right - left)) / frames}%`,
        top: `${view.keys.offsetTop + upper * view.keys.offsetHeight}px`, height: `${(lower - upper) * view.keys.offsetHeight}px`,
      })
      const drawn = view.box.getBoundingClientRect()
      const touched = [...view.keys.querySelectorAll('.os-thumb')].filter((thumb) => meet(thumb.getBoundingClientRect(), drawn))
      editor.select(union(before, touched.map((thumb) => Number(thumb.dataset.index))))
    },
    drop(last, moved) {
      end()
      if (!moved) {
        editor.select(before)
        editor.setUi({ playhead: Math.min(editor.state.frames - 1, Math.max(0, Math.floor(start))) })
      } else if (editor.ui.selected.length) view.focusKeyframe(editor.ui.selected.at(-1))
    },
    cancel() {
      end()
      editor.select(before)
    },
  })
}

const union = (some, more) => [...new Set([...some, ...more])]
const meet = (a, b) => a.width > 0 && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom
