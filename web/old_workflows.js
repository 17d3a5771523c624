// Workflows of two other Open-Sora packs: as one is opened, its nodes become ours. docs/old-workflows.md says which.

import { app } from '../../scripts/app.js'
import { registerOnce } from './once.js'

const VAE_2D = 'sd-vae-ft-ema.safetensors'
const T5 = 't5xxl_fp16.safetensors'
// By the folder of their configuration file.
const GENERATIONS = {
  'opensora-v1-2': { model: 'OpenSora-STDiT-v3.safetensors', vae: 'OpenSora-VAE-v1.2.safetensors', steps: 30 },
  'opensora-v1-1': { model: 'OpenSora-STDiT-v2-stage3.safetensors', vae: VAE_2D, steps: 100 },
  opensora: { model: 'OpenSora-v1-HQ-16x512x512.pth', vae: VAE_2D, steps: 100 },
  pixart: { model: 'PixArt-XL-2-512x512.pth', vae: VAE_2D, steps: 20 },
}
const CFG = 7 // of all their configurations
const LOADER = 'OpenSoraLoader'
const OLD = new Set([LOADER, 'OpenSoraTextEncoder', 'OpenSoraEncoder', 'OpenSoraDecoder', 'OpenSoraRun'])
// Theirs has our name for another node: it is known by what it is fed.
const SAMPLER = 'OpenSoraSampler'

const has = (node, name) => node.inputs?.some((input) => input.name === name)
const isOld = (node) => OLD.has(node.type) || (node.type === SAMPLER && (has(node, 'pipe') || has(node, 'scheduler')))

// Changes `workflow`, as a file holds it, or leaves it whole where it fails. Returns how many of their nodes were taken out.
export function translate(workflow) {
  const old = (workflow.nodes ?? []).filter(isOld)
  // Where their pack is installed its workflows are its own; a sampler that is alone says too little.
  if (LOADER in LiteGraph.registered_node_types || !old.some((node) => node.type === LOADER)) return 0
  if (!(workflow.links ?? []).every(Array.isArray)) return 0
  const copy = JSON.parse(JSON.stringify(workflow))
  new Translation(copy, copy.nodes.filter(isOld)).run()
  Object.assign(workflow, copy)
  return old.length
}

class Translation {
  constructor(workflow, old) {
    this.workflow = workflow
    this.old = new Map(old.map((node) => [node.id, node]))
    this.links = workflow.links // [id, origin, slot, target, slot, type]
    this.parts = new Map() // their loader's id → what became of it
    this.now = new Map() // "id:slot" of theirs → [node, slot] of ours, null where there is nothing
    this.made = []
    this.used = new Set() // encoders whose picture went into a keyframe
    this.ours = new Set() // links that we made
    this.nodeId = Math.max(0, ...workflow.nodes.map((node) => Number(node.id) || 0))
    this.linkId = Math.max(0, ...this.links.map((link) => link[0]))
  }

  run() {
    const all = [...this.old.values()]
    const each = (type, act) => all.filter((node) => node.type === type).forEach((node) => act.call(this, node))
    each(LOADER, this.loader)
    each('OpenSoraTextEncoder', this.textEncoder)
    each(SAMPLER, this.sampler)
    each('OpenSoraDecoder', (node) => this.decoder(node, 'latents'))
    each('OpenSoraRun', (node) => this.decoder(node, 'samples'))
    each('OpenSoraEncoder', this.encoder)
    this.rewire()
  }

  // One of our nodes with these values; in the place of `node`, or beside it where `row` says how far down.
  make(type, node, values, row) {
    const fresh = LiteGraph.createNode(type)
    for (const [name, value] of Object.entries(values)) {
      const widget = fresh.widgets.find((each) => each.name === name)
      if (widget) widget.value = value
    }
    const made = JSON.parse(JSON.stringify(fresh.serialize()))
    made.id = row === undefined ? node.id : ++this.nodeId
    made.pos = [Number(node.pos[0]), Number(node.pos[1]) + (row ?? 0) * 140]
    made.mode = node.mode ?? 0
    if (row === undefined) made.order = node.order
    this.made.push(made)
    return made
  }

  connect(from, target, name) {
    if (!from) return
    const [origin, slot] = from
    const place = target.inputs.findIndex((input) => input.name === name)
    if (place < 0) return
    const id = ++this.linkId
    this.links.push([id, origin.id, slot, target.id, place, origin.outputs?.[slot]?.type ?? target.inputs[place].type])
    target.inputs[place].link = id
    this.ours.add(id)
    this.leaves(origin, slot, id)
  }

  leaves(origin, slot, id) {
    const output = origin.outputs?.[slot]
    if (output) output.links = [...(output.links ?? []), id]
  }

  linkInto(node, name) {
    const id = node.inputs?.find((input) => input.name === name)?.link
    return id === null || id === undefined ? undefined : this.links.find((link) => link[0] === id)
  }

  // [node, slot] that feeds an input of theirs, as it is now.
  fed(node, name) {
    const link = this.linkInto(node, name)
    if (!link) return null
    const key = `${link[1]}:${link[2]}`
    if (this.now.has(key)) return this.now.get(key)
    const origin = [...this.made, ...this.workflow.nodes].find((each) => each.id === link[1])
    return origin ? [origin, link[2]] : null
  }

  loaderOf(node, name) {
    return this.parts.get(this.linkInto(node, name)?.[1])
  }

  loader(node) {
    const values = node.widgets_values ?? []
    const first = has(node, 'ckpt_path') || node.outputs?.some((output) => output.type === 'SCHEDULER')
    const wanted = first ? ofFirst(values) : ofSecond(values)
    const model = this.make('OpenSoraLoadModel', node, { model_name: wanted.model })
    const clip = this.make('OpenSoraLoadTextEncoder', node, { text_encoder_name: wanted.clip }, 1)
    const vae = this.make('OpenSoraLoadVAE', node, { vae_name: wanted.vae }, 2)
    const part = { ...wanted, model: [model, 0], clip: [clip, 0], vae: [vae, 0] }
    this.parts.set(node.id, part)
    let slots = [part.model, part.clip, part.vae, null]
    if (!first) {
      const empty = this.make('OpenSoraEmptyLatent', node, wanted.size, 3)
      this.connect(part.vae, empty, 'vae')
      part.latent = [empty, 0]
      slots = [null, null, null, part.clip, part.vae, [empty, 3], [empty, 1], [empty, 2], [empty, 4]]
    }
    slots.forEach((place, slot) => this.now.set(`${node.id}:${slot}`, place))
  }

  text(node, values, part, row) {
    const made = this.make('OpenSoraTextEncode', node, values, row)
    this.connect(part?.model, made, 'model')
    return made
  }

  textEncoder(node) {
    const [prompt, negative, camera, moves, motion, scored, score] = node.widgets_values ?? []
    const part = this.loaderOf(node, 'text_encoder')
    const clip = this.fed(node, 'text_encoder')
    const positive = this.text(node, {
      prompt,
      camera_motion: camera ?? 'none',
      motion_score: moves === 'enabled' ? motion : 0,
      aesthetic_score: scored === 'enabled' ? score : 0,
    }, part)
    this.connect(clip, positive, 'clip')
    this.now.set(`${node.id}:0`, [positive, 0])
    // Without words theirs takes the null caption, and so does our sampler where nothing is connected.
    this.now.set(`${node.id}:1`, null)
    if (!negative?.trim() || !node.outputs?.[1]?.links?.length) return
    const second = this.text(node, { prompt: negative }, part, 2)
    this.connect(clip, second, 'clip')
    this.now.set(`${node.id}:1`, [second, 0])
  }

  sampler(node) {
    const values = node.widgets_values ?? []
    const first = has(node, 'scheduler')
    const part = this.loaderOf(node, first ? 'model' : 'pipe') ?? this.loaderOf(node, 'scheduler')
    // Theirs: prompt, dtype, seed, control, frames, width, height; or seed, control, dtype, steps, guidance.
    const [seed, control] = first ? values.slice(2, 4) : values
    const steps = first || this.linkInto(node, 'steps') ? part?.steps : values[3]
    const cfg = first || this.linkInto(node, 'guidance') ? CFG : values[4]
    const made = this.make(SAMPLER, node, { seed, control_after_generate: control, steps, cfg, denoise: 1 })
    this.connect(part?.model, made, 'model')
    let positive = this.fed(node, 'positive')
    if (!positive) {
      const text = this.text(node, { prompt: first ? values[0] : '' }, part, -2)
      this.connect(part?.clip, text, 'clip')
      positive = [text, 0]
    }
    this.connect(positive, made, 'positive')
    this.connect(this.fed(node, 'negative'), made, 'negative')
    this.connect(this.fed(node, 'steps'), made, 'steps')
    this.connect(this.fed(node, 'guidance'), made, 'cfg')
    let latent = part?.latent
    if (first) {
      // Their width is the first of two sides and so becomes the height of the frames.
      const [frames, height, width] = values.slice(4)
      const empty = this.make('OpenSoraEmptyLatent', node, { resolution: 'custom', frames, width, height, fps: 8 }, 2)
      this.connect(part?.vae, empty, 'vae')
      latent = [empty, 0]
    }
    this.connect(this.withReference(node, latent, part), made, 'latent')
    this.now.set(`${node.id}:0`, [made, 0])
  }

  // A picture that was encoded for their `reference` becomes a keyframe at the beginning.
  withReference(node, latent, part) {
    const encoder = this.old.get(this.linkInto(node, 'reference')?.[1])
    if (encoder?.type !== 'OpenSoraEncoder' || !latent) return latent
    this.used.add(encoder.id)
    const keyframe = this.make('OpenSoraKeyframe', node, { frame: 0, strength: 1 }, 3)
    this.connect(latent, keyframe, 'latent')
    this.connect(part.vae, keyframe, 'vae')
    this.connect(this.fed(encoder, 'image'), keyframe, 'image')
    return [keyframe, 0]
  }

  decoder(node, name) {
    const made = this.make('OpenSoraVAEDecode', node, {})
    this.connect(this.fed(node, 'vae'), made, 'vae')
    this.connect(this.fed(node, name), made, 'samples')
    this.now.set(`${node.id}:0`, [made, 0])
  }

  encoder(node) {
    const others = this.links.filter((link) => link[1] === node.id && !this.old.has(link[3]))
    if (this.used.has(node.id) && !others.length) return
    const made = this.make('OpenSoraVAEEncode', node, {})
    this.connect(this.fed(node, 'vae'), made, 'vae')
    this.connect(this.fed(node, 'image'), made, 'pixels')
    this.now.set(`${node.id}:0`, [made, 0])
  }

  // Takes theirs out; what led from them to other nodes leads from ours.
  rewire() {
    const { workflow, old } = this
    const node = (id) => workflow.nodes.find((each) => each.id === id)
    workflow.links = this.links.filter((link) => {
      const [id, from, slot, to] = link
      if (this.ours.has(id)) return true
      const place = this.now.get(`${from}:${slot}`)
      if (old.has(to) || (old.has(from) && !place)) {
        const output = node(from).outputs[slot]
        output.links = output.links?.filter((each) => each !== id)
        const input = node(to)?.inputs?.find((each) => each.link === id)
        if (input) input.link = null
        return false
      }
      if (old.has(from)) {
        link[1] = place[0].id
        link[2] = place[1]
        this.leaves(place[0], place[1], id)
      }
      return true
    })
    workflow.nodes = [...workflow.nodes.filter((node) => !old.has(node.id)), ...this.made]
    workflow.last_node_id = Math.max(Number(workflow.last_node_id) || 0, this.nodeId)
    workflow.last_link_id = Math.max(Number(workflow.last_link_id) || 0, this.linkId)
  }
}

// ckpt_path, config, num_frames, width, height, dtype, num_sampling_steps: Open-Sora 1.0.
function ofFirst([file, , , , , , steps]) {
  return { model: file, clip: T5, vae: VAE_2D, steps }
}

// config, duration, resolution, aspect_ratio, custom_checkpoint, custom_vae, custom_clip.
function ofSecond([config, duration, resolution, ratio, file, vae, clip]) {
  const [folder, , name] = String(config).split('/')
  const { steps, ...files } = GENERATIONS[folder] ?? GENERATIONS['opensora-v1-2']
  const own = (choice, published) => (!choice || ['Default', 'Skip'].includes(choice) ? published : choice)
  const [, frames, side] = /(\d+)x(\d+)/.exec(name ?? '') ?? []
  // Theirs is height to width.
  const turned = String(ratio).split(':').reverse().join(':')
  const size = frames
    ? { resolution: 'custom', width: +side, height: +side, frames: +frames, fps: FPS[frames] ?? 24 }
    : { resolution, aspect_ratio: turned, duration, frames: FRAMES[duration], fps: 24 }
  return {
    model: own(file, files.model),
    vae: own(vae, files.vae),
    clip: own(clip, T5),
    steps: name?.includes('rflow') ? 10 : steps,
    size,
  }
}

const FRAMES = { '2s': 51, '4s': 102, '8s': 204, '16s': 408 }
const FPS = { 1: 1, 16: 8, 64: 12 }

registerOnce({
  name: 'OpenSora.OldWorkflows',
  beforeConfigureGraph(workflow) {
    let count = 0
    try {
      count = translate(workflow)
    } catch (error) {
      console.warn('Open-Sora: this workflow of another pack could not be translated', error)
    }
    if (!count) return
    app.extensionManager?.toast?.add({
      severity: 'info',
      summary: 'Open-Sora',
      detail: `${count} nodes of another Open-Sora pack were replaced. Choose the files in the three loaders.`,
      life: 8000,
    })
  },
})
