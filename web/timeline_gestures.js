// Mouse and keyboard on the timeline: what a gesture shows while it lasts, and the one change that it makes.

import { EMPTY, held, places, snap, step, strengthOf } from './timeline_model.js'

const [STARTS_AT, OFF_TRACK, STRENGTH_STEP] = [4, 34, 0.05] // pixels, pixels, 1

// Returns a function that takes every listener away.
export function listen(editor) {
  const { view } = editor
  const all = new AbortController()
  const on = (element, kind, act) => element.addEventListener(kind, act, { signal: all.signal })

  on(view.root, 'pointerdown', (event) => pressed(editor, event, all.signal))
  on(view.root, 'keydown', (event) => typed(editor, event))
  on(view.root, 'dblclick', (event) => {
    const card = event.target.closest('.os-card:not(.os-missing)')
    if (card && !event.target.closest('.os-add')) editor.addAtPlayhead(card.dataset.name)
    event.stopPropagation()
  })
  on(view.root, 'focusin', (event) => {
    const index = event.target.closest?.('.os-thumb')?.dataset.index
    if (index !== undefined) editor.setUi({ selected: Number(index) })
  })
  on(view.root, 'click', (event) => {
    const card = event.target.closest('.os-card')
    const thumb = event.target.closest('.os-thumb')
    if (event.target.closest('.os-add')) editor.addAtPlayhead(card.dataset.name)
    else if (event.target.closest('.os-remove')) editor.remove(Number(thumb.dataset.index))
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
  if (thumb) return dragKeyframe(editor, event, Number(thumb.dataset.index), ended)
  if (card) {
    card.focus({ preventScroll: true })
    return card.classList.contains('os-missing') ? undefined : dragCard(editor, event, card, ended)
  }
  if (target.closest('.os-track')) return dragPlayhead(editor, event, ended)
  view.track.focus({ preventScroll: true })
}

// Follow the pointer until it is let go: move(event), then drop(event), or cancel() on Escape. Other keys wait till then:
// Delete would take away the keyframe that is being dragged.
function follow(event, ended, { move, drop, cancel }) {
  const gesture = new AbortController()
  const options = { signal: AbortSignal.any([gesture.signal, ended]), capture: true }
  let moved = false
  const finish = (act, last) => {
    gesture.abort()
    act?.(last, moved)
  }
  window.addEventListener('pointermove', (next) => {
    if (next.pointerId !== event.pointerId) return
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

// Where the pointer is on the track: `frame` with fraction, `off` the pixels above or below it.
function pointAt(editor, event) {
  const box = editor.view.track.getBoundingClientRect()
  const frame = ((event.clientX - box.left) / box.width) * editor.state.frames
  const scale = box.height / editor.view.track.offsetHeight
  const beside = Math.max(box.left - event.clientX, event.clientX - box.right, 0)
  const off = Math.max(box.top - event.clientY, event.clientY - box.bottom, beside - 20 * scale, 0) / scale
  return { frame, off }
}

function dragKeyframe(editor, event, index, ended) {
  const { view, state } = editor
  view.focusKeyframe(index)
  const one = state.seen[index]
  const alone = (state.counts[one.name] ?? 1) <= 1
  const own = one.held.map((each) => state.groups[each])
  // A picture goes where its middle is, a clip where its beginning is.
  const anchor = alone && own.length ? (own[0][0] + own.at(-1)[1] + 1) / 2 : one.shown + 0.5
  const offset = pointAt(editor, event).frame - anchor
  let place = null
  const away = (last) => pointAt(editor, last).off > OFF_TRACK
  // In its own group it stays as it was written: -1 remains the last frame.
  const here = one.at === null ? null : snap(state.groups, one.at)
  const put = (keyframes) => {
    if (place !== here) keyframes[index].frame = place
  }
  const end = () => {
    view.root.classList.remove('os-removing')
    view.say(null)
    place = null
    editor.preview(null)
    view.focusKeyframe(index)
  }
  follow(event, ended, {
    move(next) {
      place = snap(state.groups, pointAt(editor, next).frame - offset)
      editor.preview(put)
      view.root.classList.toggle('os-removing', away(next))
      const now = editor.state.seen[index]
      if (away(next)) view.say('Let go to remove this keyframe', now.shown, true)
      else view.say(view.place(now), now.shown, now.faults.length > 0)
    },
    drop(last, moved) {
      const [goes, target] = [moved && away(last), place]
      end()
      if (goes) editor.remove(index)
      else if (moved && target !== null && target !== here) {
        editor.commit((keyframes) => (keyframes[index].frame = target))
        view.focusKeyframe(index)
      }
    },
    cancel: end,
  })
}

function dragStrength(editor, event, index, ended) {
  const { view } = editor
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
    view.say(null)
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
    view.say(null)
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
        return view.say(null)
      }
      const own = held(state.groups, place, state.counts[name]).map((index) => state.groups[index])
      view.showDrop(own.length ? [own[0][0], own.at(-1)[1] + 1] : [place, place + 1])
      return view.say(view.place({ index: -1, name, at: place, held: [], kept: [] }), place)
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
    editor.setUi({ selected: null })
    move(event)
  }
  follow(event, ended, { move })
}

// Keys that the editor has a use for stay in it: Delete would delete the node.
function typed(editor, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (event.target.closest('textarea')) {
    if (event.key === 'Escape') editor.view.use.focus()
    return event.stopPropagation()
  }
  const thumb = event.target.closest('.os-thumb')
  const card = event.target.closest('.os-card')
  const used = thumb
    ? keyOnKeyframe(editor, event.key, Number(thumb.dataset.index))
    : event.target.closest('.os-playhead')
      ? keyOnPlayhead(editor, event)
      : card && !card.classList.contains('os-missing') && event.key === 'Enter'
  if (card && used) editor.addAtPlayhead(card.dataset.name)
  if (!used && !['Delete', 'Backspace'].includes(event.key)) return undefined
  event.preventDefault()
  return event.stopPropagation()
}

function keyOnKeyframe(editor, key, index) {
  const { groups, seen, keyframes } = editor.state
  const { shown: at, strength } = seen[index]
  const all = places(groups)
  const moves = { ArrowLeft: step(groups, at, -1), ArrowRight: step(groups, at, 1), Home: all[0], End: all.at(-1) }
  const turns = { ArrowUp: STRENGTH_STEP, ArrowDown: -STRENGTH_STEP }
  if (key === 'Delete' || key === 'Backspace') editor.remove(index)
  else if (key in moves) {
    if (moves[key] !== snap(groups, at) || seen[index].at === null) editor.commit((all) => (all[index].frame = moves[key]))
  } else if (key in turns) {
    const wanted = Math.round(100 * Math.min(1, Math.max(0, strength + turns[key]))) / 100
    if (wanted !== strengthOf(keyframes[index])) editor.commit((all) => (all[index].strength = wanted))
  } else return false
  return true
}

function keyOnPlayhead(editor, { key, shiftKey }) {
  const { frames, groups } = editor.state
  const { playhead } = editor.ui
  const by = (steps) => (shiftKey ? step(groups, playhead, steps) : playhead + steps)
  const moves = { ArrowLeft: by(-1), ArrowRight: by(1), Home: 0, End: frames - 1 }
  if (!(key in moves)) return false
  editor.setUi({ playhead: Math.min(frames - 1, Math.max(0, moves[key])) })
  return true
}
