// Copy, cut, paste and duplicate of keyframes: as JSON in the system's clipboard, so that they reach other timelines too.

import { dropAtPlayhead } from './timeline_drop.js'
import { places, settle, snap } from './timeline_model.js'
import { say } from './words.js'

const KEY = 'opensora_keyframes'

// The page copies and pastes nodes on these events, which go to the body: ours come first while the focus is in the editor.
export function listenToClipboard(editor, ended) {
  const acts = { copy, cut: (...values) => copy(...values) && editor.remove(editor.ui.selected), paste }
  for (const [kind, act] of Object.entries(acts))
    window.addEventListener(kind, (event) => {
      const focused = document.activeElement
      if (!editor.view.root.contains(focused) || focused.matches('textarea, input')) return
      event.preventDefault()
      event.stopImmediatePropagation()
      if (editor.state.blocked) editor.view.tell(say('Keyframes cannot be changed while the text is shown.'), true)
      else act(editor, event.clipboardData)
    }, { capture: true, signal: ended })
}

// Keys with ctrl that are about keyframes; copy, cut and paste follow as events of their own.
export function keyOfClipboard(editor, event) {
  const key = event.key.toLowerCase()
  if (!'cxvda'.includes(key) || editor.state.blocked) return
  event.stopPropagation()
  if (!'da'.includes(key)) return
  event.preventDefault()
  if (key === 'd') duplicate(editor)
  else if (editor.state.seen.length) editor.selectAndFocus(editor.state.seen.map((_, index) => index))
}

// The selected keyframes with their frames counted from the clip's beginning, those outside of it left out.
function chosen(editor) {
  const { seen, keyframes } = editor.state
  return editor.ui.selected.filter((index) => seen[index].at !== null)
    .map((index) => ({ ...structuredClone(keyframes[index]), frame: seen[index].at }))
}

const nothing = (editor) => editor.view.tell(say('No keyframe is selected: click one, or press Ctrl+A for all.'))

function copy(editor, clipboard) {
  const keyframes = chosen(editor)
  if (!keyframes.length) return nothing(editor)
  clipboard.setData('text/plain', JSON.stringify({ [KEY]: keyframes }))
  editor.view.tell(keyframes.length === 1 ? say('1 keyframe copied.') : say('{n} keyframes copied.', { n: keyframes.length }))
  return true
}

function paste(editor, clipboard) {
  const files = [...clipboard.files]
  if (files.length) return dropAtPlayhead(editor, files)
  const keyframes = read(clipboard.getData('text/plain'))
  if (!keyframes) return editor.view.tell(say('The clipboard holds no keyframes and no picture.'))
  return put(editor, keyframes, editor.ui.playhead)
}

// The keyframes in a text, or null where it holds none.
function read(text) {
  let found
  try {
    found = JSON.parse(text)?.[KEY]
  } catch {
    return null
  }
  const good = (one) => Number.isInteger(one?.image) && Number.isInteger(one?.frame) && one.frame >= 0
  return Array.isArray(found) && found.length && found.every(good) ? found : null
}

// Copies beside the originals; the clipboard stays as it is.
function duplicate(editor) {
  const keyframes = chosen(editor)
  if (!keyframes.length) return nothing(editor)
  const all = places(editor.state.groups)
  const last = snap(editor.state.groups, Math.max(...keyframes.map(({ frame }) => frame)))
  return put(editor, keyframes, all[Math.min(all.length - 1, all.indexOf(last) + 1)])
}

function put(editor, keyframes, start) {
  const { groups, frames, counts, seen } = editor.state
  const items = keyframes.map(({ image, frame }) => ({ at: frame, count: counts[`image_${image}`] }))
  const taken = new Set(seen.flatMap((one) => one.held))
  const found = settle(groups, frames, items, start, taken)
  const fitting = keyframes.map((one, index) => ({ ...one, frame: found[index] })).filter((one) => one.frame !== null)
  const left = keyframes.filter((_, index) => found[index] === null).map(({ image }) => `image_${image}`)
  if (fitting.length) {
    const from = seen.length
    editor.commit((all) => all.push(...fitting))
    editor.selectAndFocus(fitting.map((_, index) => from + index))
  }
  if (left.length) editor.view.tell(say('No room for {names}: the clip ends at frame {last}, and what is taken stays as it is.',
    { names: left.join(', '), last: frames - 1 }), true)
}
