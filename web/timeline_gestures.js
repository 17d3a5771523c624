// Mouse and keyboard on the timeline: what a gesture shows while it lasts, and the one change that it makes.

import { listenToClipboard, keyOfClipboard } from './timeline_clipboard.js'
import { listenToDrops } from './timeline_drop.js'
import { EMPTY, held, places, shifted, snap, step, strengthOf } from './timeline_model.js'
import { follow, pointAt } from './timeline_pointer.js'
import { dragBox, pressSelects, releaseSelects } from './timeline_selection.js'
import { keyOfZoom, listenToZoom } from './timeline_zoom.js'
import { say } from './words.js'

const [OFF_TRACK, STRENGTH_STEP] = [34, 0.05] // pixels, 1

// Returns a function that takes every listener away.
export function listen(editor) {
  const { view } = editor
  const all = new AbortController()
  const on = (element, kind, act) => element.addEventListener(kind, act, { signal: all.signal })

  listenToZoom(editor, on, all.signal)
  listenToClipboard(editor, all.signal)
  listenToDrops(editor, on)
  for (const kind of ['pointerdown', 'keydown'])
    window.addEventListener(kind, () => view.tell(null), { capture: true, signal: all.signal })
  // A press on the canvas leaves the keyboard where it was; its keys are then the canvas's.
  window.addEventListener('pointerdown', ({ target }) => {
    if (!view.root.contains(target) && view.root.contains(document.activeElement)) document.activeElement.blur()
  }, { capture: true, signal: all.signal })
  on(view.root, 'pointerdown', (event) => pressed(editor, event, all.signal))
  on(view.root, 'keydown', (event) => typed(editor, event))
  on(view.root, 'dblclick', (event) => {
    const card = event.target.closest('.os-card:not(.os-missing)')
    if (card && !event.target.closest('.os-add')) editor.addAtPlayhead(card.dataset.name)
    event.stopPropagation()
  })
  on(view.root, 'focusin', (event) => {
    const index = event.target.closest?.('.os-thumb')?.dataset.index
    if (index !== undefined) editor.focused(Number(index))
  })
  on(view.root, 'click', (event) => {
    const card = event.target.closest('.os-card')
    const thumb = event.target.closest('.os-thumb')
    if (event.target.closest('.os-add')) editor.addAtPlayhead(card.dataset.name)
    else if (event.target.closest('.os-remove')) editor.remove([Number(thumb.dataset.index)])
  })
  on(view.code, 'click', () => setTyping(editor, !editor.typing))
  on(view.back, 'click', () => setTyping(editor, false))
  on(view.use, 'click', () => {
    editor.typing = false
    view.use.focus()
    editor.write(view.text.value)
  })
  on(view.anew, 'click', () => {
    setTyping(editor, false)
    editor.write(EMPTY)
    view.focusKeyframe(null)
  })
  return () => all.abort()
}

function setTyping(editor, typing) {
  editor.typing = typing
  editor.refresh()
}

function pressed(editor, event, ended) {
  if (event.button !== 0) return
  event.stopPropagation()
  const { view } = editor
  const { target } = event
  if (target.closest('button, textarea') || view.root.classList.contains('os-blocked')) return
  // The page would start a selection of text; the focus is set by hand.
  event.preventDefault()
  const handle = target.closest('.os-handle')
  const thumb = target.closest('.os-thumb')
  const card = target.closest('.os-card')
  if (handle) return dragStrength(editor, event, Number(handle.parentElement.dataset.index), ended)
  if (thumb) return pressSelects(editor, event, Number(thumb.dataset.index)) && dragKeyframes(editor, event, Number(thumb.dataset.index), ended)
  if (card) {
    card.focus({ preventScroll: true })
    return card.classList.contains('os-missing') ? undefined : dragCard(editor, event, card, ended)
  }
  if (target.closest('.os-keys')) return dragBox(editor, event, ended)
  if (target.closest('.os-track')) return dragPlayhead(editor, event, ended)
  view.track.focus({ preventScroll: true })
}

// Drag a keyframe, and with it all others that are selected.
function dragKeyframes(editor, event, index, ended) {
  const { view, state } = editor
  const { selected } = editor.ui
  view.focusKeyframe(index)
  const one = state.seen[index]
  const alone = (state.counts[one.name] ?? 1) <= 1
  const own = one.held.map((each) => state.groups[each])
  // A picture goes where its middle is, a clip where its beginning is.
  const anchor = alone && own.length ? (own[0][0] + own.at(-1)[1] + 1) / 2 : one.shown + 0.5
  const offset = pointAt(editor, event).frame - anchor
  const all = places(state.groups)
  const before = all.indexOf(snap(state.groups, one.shown))
  let moves = []
  const away = (last) => pointAt(editor, last).off > OFF_TRACK
  const put = (keyframes) => {
    for (const [each, frame] of moves) keyframes[each].frame = frame
  }
  const end = () => {
    view.root.classList.remove('os-removing')
    view.whisper(null)
    editor.preview(null)
    view.focusKeyframe(index)
  }
  const goodbye = () => (selected.length > 1
    ? say('Let go to remove these {n} keyframes', { n: selected.length }) : say('Let go to remove this keyframe'))
  follow(event, ended, {
    scrolls: editor,
    move(next) {
      const place = all.indexOf(snap(state.groups, pointAt(editor, next).frame - offset))
      // In their own groups they stay as they were written: -1 remains the last frame.
      moves = shifted(state.groups, state.seen, selected, place - before)
      editor.preview(put)
      view.root.classList.toggle('os-removing', away(next))
      const now = editor.state.seen[index]
      if (away(next)) view.whisper(goodbye(), now.shown, true)
      else view.whisper(view.place(now), now.shown, now.faults.length > 0)
    },
    drop(last, moved) {
      const goes = moved && away(last)
      end()
      if (!moved) releaseSelects(editor, last, index)
      else if (goes) editor.remove(selected)
      else if (moves.length) {
        editor.commit(put)
        view.focusKeyframe(index)
      }
    },
    cancel: end,
  })
}

function dragStrength(editor, event, index, ended) {
  const { view } = editor
  editor.setUi({ selected: [index] })
  view.focusKeyframe(index)
  const hold = view.holds.children[index]
  hold.classList.add('os-turning')
  const box = hold.getBoundingClientRect()
  const before = editor.state.seen[index].strength
  const from = event.clientY
  let strength = before
  const put = (keyframes) => (keyframes[index].strength = strength)
  const end = () => {
    hold.classList.remove('os-turning')
    view.whisper(null)
    editor.preview(null)
  }
  follow(event, ended, {
    move(next) {
      const wanted = before - (next.clientY - from) / box.height
      strength = Math.round(100 * Math.min(1, Math.max(0, wanted))) / 100
      editor.preview(put)
    },
    drop() {
      end()
      if (strength !== before) editor.commit(put)
      view.focusKeyframe(index)
    },
    cancel: end,
  })
}

function dragCard(editor, event, card, ended) {
  const { view, state } = editor
  const { name } = card.dataset
  const target = (next) => {
    const { frame, off } = pointAt(editor, next)
    return off === 0 ? snap(state.groups, frame) : null
  }
  const end = () => {
    view.ghost.style.display = 'none'
    view.showDrop(null)
    view.whisper(null)
  }
  follow(event, ended, {
    move(next) {
      const box = view.root.getBoundingClientRect()
      const scale = box.width / view.root.offsetWidth
      view.ghost.style.cssText = card.firstChild.style.cssText
      view.ghost.textContent = card.firstChild.textContent
      view.ghost.style.display = 'grid'
      view.ghost.style.left = `${(next.clientX - box.left) / scale}px`
      view.ghost.style.top = `${(next.clientY - box.top) / scale}px`
      const place = target(next)
      if (place === null) {
        view.showDrop(null)
        return view.whisper(null)
      }
      const own = held(state.groups, place, state.counts[name]).map((index) => state.groups[index])
      view.showDrop(own.length ? [own[0][0], own.at(-1)[1] + 1] : [place, place + 1])
      return view.whisper(view.place({ index: -1, name, at: place, held: [], kept: [] }), place)
    },
    drop(last, moved) {
      const place = moved ? target(last) : null
      end()
      if (place !== null) editor.add(name, place)
    },
    cancel: end,
  })
}

function dragPlayhead(editor, event, ended) {
  const { view } = editor
  view.playhead.focus({ preventScroll: true })
  const move = (next) => {
    const frame = Math.floor(pointAt(editor, next).frame)
    editor.setUi({ playhead: Math.min(editor.state.frames - 1, Math.max(0, frame)) })
  }
  if (!event.target.closest('.os-playhead')) {
    editor.setUi({ selected: [] })
    move(event)
  }
  follow(event, ended, { move, scrolls: editor })
}

// Keys that the editor has a use for stay in it: Delete would delete the node.
function typed(editor, event) {
  if (event.target.closest('textarea')) {
    if (event.key === 'Escape') editor.view.use.focus()
    return event.ctrlKey || event.metaKey || event.altKey ? undefined : event.stopPropagation()
  }
  if (event.altKey) return undefined
  if (event.ctrlKey || event.metaKey) return keyOfClipboard(editor, event)
  const thumb = event.target.closest('.os-thumb')
  const card = event.target.closest('.os-card')
  const blocked = editor.view.root.classList.contains('os-blocked')
  const used = thumb
    ? keyOnKeyframes(editor, event.key)
    : event.target.closest('.os-playhead')
      ? keyOnPlayhead(editor, event)
      : card && !card.classList.contains('os-missing') && event.key === 'Enter'
  if (card && used) editor.addAtPlayhead(card.dataset.name)
  const others = () => !blocked && (keyOfSelection(editor, event.key) || keyOfZoom(editor, event))
  if (!used && !others() && !['Delete', 'Backspace'].includes(event.key)) return undefined
  event.preventDefault()
  return event.stopPropagation()
}

// Wherever the focus is in the editor.
function keyOfSelection(editor, key) {
  const { selected } = editor.ui
  if (!selected.length) return false
  if (key === 'Delete' || key === 'Backspace') editor.remove(selected)
  else if (key === 'Escape') editor.select([])
  else return false
  return true
}

function keyOnKeyframes(editor, key) {
  const { groups, seen, keyframes } = editor.state
  const { selected } = editor.ui
  const far = places(groups).length
  const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -far, End: far }
  const turns = { ArrowUp: STRENGTH_STEP, ArrowDown: -STRENGTH_STEP }
  const turned = (index) => Math.round(100 * Math.min(1, Math.max(0, seen[index].strength + turns[key]))) / 100
  if (key in moves) {
    const all = shifted(groups, seen, selected, moves[key])
    if (all.length) editor.commit((keyframes) => all.forEach(([index, frame]) => (keyframes[index].frame = frame)))
  } else if (key in turns) {
    const all = selected.filter((index) => turned(index) !== strengthOf(keyframes[index]))
      .map((index) => [index, turned(index)])
    if (all.length) editor.commit((keyframes) => all.forEach(([index, strength]) => (keyframes[index].strength = strength)))
  } else return false
  editor.reveal(selected)
  return true
}

function keyOnPlayhead(editor, { key, shiftKey }) {
  const { frames, groups } = editor.state
  const { playhead } = editor.ui
  const by = (steps) => (shiftKey ? step(groups, playhead, steps) : playhead + steps)
  const moves = { ArrowLeft: by(-1), ArrowRight: by(1), Home: 0, End: frames - 1 }
  if (!(key in moves)) return false
  editor.setUi({ playhead: Math.min(frames - 1, Math.max(0, moves[key])) })
  editor.revealFrame(editor.ui.playhead)
  return true
}
