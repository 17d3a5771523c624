// Pictures and clips dropped on the editor or pasted: uploaded, loaded by a node of their own, wired in and pinned.

import { app } from '../../scripts/app.js'
import { undoStep, widgetOf } from './graph.js'
import { freePlaces, held, nearest, snap } from './timeline_model.js'
import { pointAt } from './timeline_pointer.js'
import { say } from './words.js'

const KINDS = {
  image: { type: /^image\//, name: /\.(png|jpe?g|webp|gif|bmp|tiff?|avif)$/i },
  video: { type: /^video\//, name: /\.(mp4|m4v|mov|webm|mkv|avi|mpe?g|ogv)$/i },
}
const UNREADABLE = { type: /^image\/(svg|hei[cf])/, name: /\.(svg|hei[cf])$/i }
// Graph units: beside the timeline, a node's title, between two tries, what Nodes 2.0 makes a node taller.
const [GAP, TITLE, ROW, VUE_GROWS] = [60, 30, 40, 100]
const [LOOK_EVERY, MOST_LOOKS] = [100, 10] // milliseconds, 1
const [LOADER, FRAMES] = [[270, 330], [250, 110]] // sizes: a loader with its picture, Get Video Components

const fits = (kind, { type, name = '' }) => kind.type.test(type) || kind.name.test(name)
const kindOf = (file) => (fits(UNREADABLE, file) ? undefined : Object.keys(KINDS).find((name) => fits(KINDS[name], file)))
const inWords = (names) => (names.length > 3 ? `${names.slice(0, 3).join(', ')}, …` : names.join(', '))

// Over the whole editor: beside the track the page would open a picture's workflow instead of the artist's.
export function listenToDrops(editor, on) {
  const { view } = editor
  const has = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files')
  on(view.root, 'dragover', (event) => {
    if (!has(event)) return
    event.preventDefault()
    event.stopPropagation()
    event.dataTransfer.dropEffect = 'copy'
    hint(editor, event)
  })
  on(view.root, 'dragleave', (event) => view.root.contains(event.relatedTarget) || endHint(editor))
  on(view.root, 'drop', (event) => {
    if (!has(event)) return
    event.preventDefault()
    event.stopPropagation()
    endHint(editor)
    take(editor, [...event.dataTransfer.files], placeAt(editor, event))
  })
}

// At the playhead, as pasted pictures come.
export function dropAtPlayhead(editor, files) {
  return take(editor, files, editor.ui.playhead, 'pasted')
}

// The frame under the pointer; null beside the track, where things are wired in and not pinned.
function placeAt(editor, event) {
  if (editor.state.blocked || !editor.view.stage.contains(event.target)) return null
  const { frame } = pointAt(editor, event)
  return Math.min(editor.state.frames - 1, Math.max(0, Math.floor(frame)))
}

const takenIn = ({ seen }) => new Set(seen.flatMap((one) => one.held))

// Free places for so many things from `at` on: after each other where there is room, else the nearest; null for none.
function landing({ groups, seen }, at, many) {
  const taken = takenIn({ seen })
  const found = []
  for (let nth = 0; nth < many; nth++) {
    const free = freePlaces(groups, taken)
    const after = free.filter((place) => found.length && place > found.at(-1))
    const wanted = nth ? (found.at(-1) ?? at) : snap(groups, at)
    const place = nearest(after.length ? after : free, wanted) ?? null
    found.push(place)
    if (place !== null) for (const group of held(groups, place)) taken.add(group)
  }
  return found
}

function hint(editor, event) {
  const { view, state } = editor
  const files = [...event.dataTransfer.items].filter((item) => item.kind === 'file')
  const place = placeAt(editor, event)
  view.root.classList.toggle('os-receiving', true)
  if (files.some((file) => file.type && !kindOf(file))) {
    view.showDrop(null)
    return view.whisper(say('Only pictures and clips can be dropped here'), place ?? editor.span.first + editor.span.count / 2, true)
  }
  if (place === null) {
    view.showDrop(null)
    return view.whisper(null)
  }
  const [at] = landing(state, place, 1)
  if (at === null) return view.whisper(say('Every place is taken'), place, true)
  const own = held(state.groups, at).map((index) => state.groups[index])
  view.showDrop([own[0][0], own.at(-1)[1] + 1])
  return view.whisper(view.place({ index: -1, at, held: [], kept: [] }), at)
}

function endHint({ view }) {
  view.root.classList.remove('os-receiving')
  view.showDrop(null)
  view.whisper(null)
}

// Everything or nothing: what cannot be taken whole is refused in words before anything is changed.
async function take(editor, files, at, subfolder) {
  const { view, node } = editor
  const { graph } = node
  const bad = files.filter((file) => !kindOf(file)).map((file) => file.name)
  const refusal = bad.length
    ? say('{names}: only pictures (PNG, JPEG, WebP, …) and clips (MP4, WebM, MOV, …) can be pinned.', { names: inWords(bad) })
    : noRoom(editor, files.length)
  if (refusal || !files.length) return view.tell(refusal, true)
  const loaded = []
  view.root.classList.add('os-busy')
  try {
    for (const [index, file] of files.entries()) {
      view.tell(say('Uploading {name} ({i} of {n}) …', { name: file.name, i: index + 1, n: files.length }))
      loaded.push({ kind: kindOf(file), path: await upload(file, subfolder) })
    }
  } catch (error) {
    return view.tell(error.message, true)
  } finally {
    view.root.classList.remove('os-busy')
  }
  // The artist may have gone on meanwhile.
  if (!graph || graph.getNodeById(node.id) !== node) return undefined
  const late = noRoom(editor, files.length)
  return late ? view.tell(late, true) : attach(editor, loaded, at)
}

// Why so many cannot be wired in, or null where they can.
function noRoom(editor, many) {
  const free = editor.freeInputs()
  if (many <= free.length) return null
  if (!free.length) return say('All eight image inputs are taken: unwire one, then drop it again.')
  return say('{many} files need as many free image inputs; {free} of eight are free.', { many, free: free.length })
}

// The path that a loader's list calls the file by. Raises an Error in words.
async function upload(file, subfolder) {
  const body = new FormData()
  body.append('image', file)
  if (subfolder) body.append('subfolder', subfolder)
  let reason
  try {
    const answer = await app.api.fetchApi('/upload/image', { method: 'POST', body })
    if (answer.status === 200) {
      const { name, subfolder: folder } = await answer.json()
      return folder ? `${folder}/${name}` : name
    }
    reason = `${answer.status} ${answer.statusText}`
  } catch (error) {
    reason = error.message
  }
  throw new Error(say('{name} could not be uploaded: {reason}. Nothing was changed.', { name: file.name, reason }))
}

// Nodes, wires and keyframes for what was uploaded: one step of the undo.
async function attach(editor, loaded, at) {
  const { view, node } = editor
  const inputs = editor.freeInputs()
  const before = new Set(node.graph.nodes)
  loaded.forEach(({ kind, path }, index) => {
    const source = kind === 'video' ? framesOf(node, path) : loader(node, 'LoadImage', 'image', path, node.pos[0])
    source.connect(0, node, node.inputs.findIndex((input) => input.name === inputs[index]))
  })
  await settled(node.graph.nodes.filter((each) => !before.has(each)))
  editor.refresh()
  if (at === null || editor.state.blocked) {
    undoStep()
    return view.tell(say('Wired to {inputs}. Drag it onto the track to pin it.', { inputs: inputs.slice(0, loaded.length).join(', ') }))
  }
  const places = landing(editor.state, at, loaded.length)
  const from = editor.state.keyframes.length
  const pinned = places.map((frame, index) => ({ image: Number(inputs[index].split('_')[1]), frame, strength: 1 }))
    .filter(({ frame }) => frame !== null)
  if (pinned.length) editor.commit((keyframes) => keyframes.push(...pinned))
  else undoStep()
  editor.selectAndFocus(pinned.map((_, index) => from + index))
  return view.tell(pinned.length < loaded.length
    ? say('{n} could not be pinned: every place is taken. It is wired in.', { n: loaded.length - pinned.length }) : null, true)
}

// The page gives new nodes their last size some frames later, which would be a step of the undo by itself.
async function settled(nodes) {
  let sizes
  for (let looks = 0; looks < MOST_LOOKS; looks++) {
    const now = nodes.map(({ size }) => [...size].join()).join()
    if (now === sizes) return
    sizes = now
    await new Promise((done) => setTimeout(done, LOOK_EVERY))
  }
}

// Load Video and Get Video Components, whose first output are the frames.
function framesOf(timeline, path) {
  const frames = place(LiteGraph.createNode('GetVideoComponents'), timeline, FRAMES, timeline.pos[0])
  const video = loader(timeline, 'LoadVideo', 'file', path, frames.pos[0])
  video.connect(0, frames, frames.inputs.findIndex((input) => input.name === 'video'))
  return frames
}

function loader(timeline, type, widgetName, path, right) {
  const node = place(LiteGraph.createNode(type), timeline, LOADER, right)
  const widget = widgetOf(node, widgetName)
  const { values } = widget.options
  if (Array.isArray(values) && !values.includes(path)) values.push(path)
  widget.value = path
  widget.callback?.(path)
  return node
}

// Add `node` left of `right`, at the height of the timeline or the nearest where nothing stands.
function place(node, timeline, size, right) {
  const { graph } = timeline
  node.size = [Math.max(size[0], node.size[0]), Math.max(size[1], node.size[1])]
  const others = graph.nodes.map(({ pos, size: [wide, high] }) => [pos[0], pos[1] - TITLE, wide, high + TITLE])
  const x = right - GAP - node.size[0]
  const below = window.LiteGraph?.vueNodesMode ? GAP + VUE_GROWS : GAP
  for (let nth = 0; ; nth++) {
    // Below and above by turns.
    const y = timeline.pos[1] + ROW * (nth % 2 ? -(nth + 1) / 2 : nth / 2)
    const own = [x - GAP / 2, y - TITLE - GAP / 2, node.size[0] + GAP, node.size[1] + TITLE + below]
    if (others.some((other) => overlap(own, other))) continue
    node.pos = [x, y]
    graph.add(node)
    return node
  }
}

const overlap = (a, b) => a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3]
