// The nodes of two other Open-Sora packs: how they are told, and what the values of their widgets mean to ours.

import { isValue } from './workflow_graph.js'

export const LOADER = 'OpenSoraLoader'
export const TEXT = 'OpenSoraTextEncoder'
export const ENCODER = 'OpenSoraEncoder'
export const DECODER = 'OpenSoraDecoder'
export const RUN = 'OpenSoraRun'
// Theirs has our name for another node: it is known by what it is fed.
export const SAMPLER = 'OpenSoraSampler'
const OLD = new Set([LOADER, TEXT, ENCODER, DECODER, RUN])
// Their titles, which no artist gave.
const TITLES = new Set([
  '(Down)Load Open Sora Model',
  'Open Sora Text Encoder',
  'Open Sora Sampler',
  'Open Sora Decoder',
  'Open Sora Encoder',
])

const has = (node, name) => node.inputs?.some((input) => input.name === name)
export const isTheirSampler = (node) => node.type === SAMPLER && (has(node, 'pipe') || has(node, 'scheduler'))
export const isOld = (node) => OLD.has(node.type) || isTheirSampler(node)
export const ownTitle = (node) =>
  node.title?.trim() && node.title !== node.type && !TITLES.has(node.title) ? node.title : undefined

// Whether a loader or a sampler is of the pack with a SCHEDULER; the other has a PIPE.
export const isFirst = (node) =>
  has(node, 'scheduler') ||
  has(node, 'ckpt_path') ||
  Boolean(node.outputs?.some((output) => output.type === 'SCHEDULER'))

const VAE_2D = 'sd-vae-ft-ema.safetensors'
const T5 = 't5xxl_fp16.safetensors'
// By the folder of their configuration file.
const GENERATIONS = {
  'opensora-v1-2': { model: 'OpenSora-STDiT-v3.safetensors', vae: 'OpenSora-VAE-v1.2.safetensors', steps: 30 },
  'opensora-v1-1': { model: 'OpenSora-STDiT-v2-stage3.safetensors', vae: VAE_2D, steps: 100 },
  opensora: { model: 'OpenSora-v1-HQ-16x512x512.pth', vae: VAE_2D, steps: 100 },
  pixart: { model: 'PixArt-XL-2-512x512.pth', vae: VAE_2D, steps: 20 },
}
export const CFG = 7 // of all their configurations
const FRAMES = { '2s': 51, '4s': 102, '8s': 204, '16s': 408 }
const FPS = { 1: 1, 16: 8, 64: 12 }

// A kind of widget: what `read` makes of a saved value, undefined where it is none of that kind, and their default.
const number = (fallback, round = (value) => value) => ({
  fallback,
  read: (value) => {
    const plain = typeof value === 'string' && value.trim() ? Number(value) : value
    return Number.isFinite(plain) ? round(plain) : undefined
  },
})
const whole = (fallback) => number(fallback, Math.trunc)
const words = (fallback) => ({ fallback, read: (value) => (typeof value === 'string' ? value : undefined) })
const file = (fallback) => ({ fallback, read: (value) => (typeof value === 'string' && value ? value : undefined) })
const oneOf = (choices, fallback) => ({ fallback, read: (value) => (choices.includes(value) ? value : undefined) })
const switched = oneOf(['disabled', 'enabled'], 'disabled')
const config = {
  fallback: 'opensora-v1-2/inference/sample.py',
  read: (value) => (String(value).split('/')[0] in GENERATIONS ? value : undefined),
}

const CONTROL = 'control_after_generate'
const CONTROLS = ['fixed', 'increment', 'decrement', 'randomize']
const control = oneOf(CONTROLS, 'fixed')
const CAMERA = ['none', 'pan right', 'pan left', 'tilt up', 'tilt down', 'zoom in', 'zoom out', 'static']
// In the order in which files have them.
const FIRST = {
  [LOADER]: {
    ckpt_path: file('OpenSora-v1-HQ-16x512x512.pth'), config: words(''), num_frames: whole(16), width: whole(512),
    height: whole(512), dtype: words('fp16'), num_sampling_steps: whole(100),
  },
  [SAMPLER]: {
    prompt: words(''), dtype: words('fp16'), seed: whole(42), [CONTROL]: control, num_frames: whole(16),
    width: whole(512), height: whole(512),
  },
}
const SECOND = {
  [LOADER]: {
    config, duration: oneOf(Object.keys(FRAMES), '2s'),
    resolution: oneOf(['144p', '240p', '360p', '480p', '720p'], '240p'),
    aspect_ratio: oneOf(['9:16', '16:9', '3:4', '4:3', '1:1'], '1:1'),
    custom_checkpoint: file('Default'), custom_vae: file('Default'), custom_clip: file('Default'),
  },
  [SAMPLER]: {
    seed: whole(0), [CONTROL]: control, dtype: words('fp16'), steps: whole(100), guidance: number(4.5),
  },
}
const BOTH = {
  [TEXT]: {
    positive_prompt: words(''), negative_prompt: words(''), camera_motion: oneOf(CAMERA, 'none'),
    enable_motion_strength: switched, motion_strength: whole(5), enable_aesthetic_score: switched,
    aesthetic_score: number(6.5),
  },
  [ENCODER]: { dtype: words('fp16') },
  [DECODER]: { dtype: words('fp16') },
  [RUN]: { dtype: words('fp16') },
}

// The values of a node's widgets as it would run: saved ones, or those of a node that is nothing but a value.
export class Widgets {
  // `source` says where the wire into a widget comes from; `missing` is told of each that had to take their default.
  constructor(node, source, missing) {
    this.kinds = (isFirst(node) ? FIRST : SECOND)[node.type] ?? BOTH[node.type] ?? {}
    this.saved = byName(node.widgets_values, Object.keys(this.kinds))
    this.source = source
    this.missing = missing
  }

  get(name) {
    const kind = this.kinds[name]
    const source = this.source(name)
    const constant = source && isValue(source.node) ? kind.read(source.node.widgets_values?.[0]) : undefined
    const value = constant ?? kind.read(this.saved[name])
    if (value !== undefined) return value
    if (!source && name !== CONTROL) this.missing(name, kind.fallback)
    return kind.fallback
  }
}

// Files have a list, or names with values; a list may be short, and lack what the page adds to a seed.
function byName(values, names) {
  if (!Array.isArray(values)) return values ?? {}
  const place = names.indexOf(CONTROL)
  const added = values.length >= names.length || CONTROLS.includes(values[place])
  const there = added ? names : names.filter((name) => name !== CONTROL)
  return Object.fromEntries(there.map((name, index) => [name, values[index]]))
}

// What a loader of Open-Sora 1.0 asks for.
export function ofFirst(widgets) {
  return { model: widgets.get('ckpt_path'), clip: T5, vae: VAE_2D, steps: widgets.get('num_sampling_steps') }
}

// What a loader with a configuration file asks for; `named` are the files that are not left to it.
export function ofSecond(widgets) {
  const [folder, , name] = widgets.get('config').split('/')
  const { steps, ...files } = GENERATIONS[folder]
  const named = new Set()
  const own = (widget, published) => {
    const choice = widgets.get(widget)
    if (['Default', 'Skip'].includes(choice)) return published
    named.add(widget)
    return choice
  }
  return {
    model: own('custom_checkpoint', files.model),
    vae: own('custom_vae', files.vae),
    clip: own('custom_clip', T5),
    steps: name?.includes('rflow') ? 10 : steps,
    size: sizeOf(name, widgets),
    named,
  }
}

function sizeOf(config, widgets) {
  const [, frames, side] = /(\d+)x(\d+)/.exec(config ?? '') ?? []
  if (frames) return { resolution: 'custom', width: +side, height: +side, frames: +frames, fps: FPS[frames] ?? 24 }
  const duration = widgets.get('duration')
  // Theirs is height to width.
  const turned = widgets.get('aspect_ratio').split(':').reverse().join(':')
  return { resolution: widgets.get('resolution'), aspect_ratio: turned, duration, frames: FRAMES[duration], fps: 24 }
}
