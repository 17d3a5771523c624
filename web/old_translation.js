// A workflow of another Open-Sora pack, node by node into ours. No wire is dropped that is not named.

import { layOut } from './old_looks.js'
import { CFG, DECODER, ENCODER, LOADER, RUN, SAMPLER, TEXT } from './old_nodes.js'
import { Widgets, isFirst, ofFirst, ofSecond, ownTitle } from './old_nodes.js'
import { Wiring } from './old_wiring.js'
import { BYPASSED, MUTED, isOff } from './workflow_graph.js'

export class Translation extends Wiring {
  run() {
    for (const node of this.old) this.findLooseEnds(node)
    this.handOn()
    this.sources = new Map([...this.graph.links.values()].map((link) => [link, this.graph.source(link)]))
    const each = (type, act) => this.old.filter((node) => node.type === type).forEach((node) => act.call(this, node))
    each(LOADER, this.loader)
    each(TEXT, this.textEncoder)
    each(SAMPLER, this.sampler)
    each(DECODER, (node) => this.decoder(node, 'latents'))
    each(RUN, (node) => this.decoder(node, 'samples'))
    this.graph.tidy()
    each(ENCODER, this.encoder)
    this.finish()
    return this.losses.sentences
  }

  // Links that the file itself has lost.
  findLooseEnds(node) {
    for (const input of node.inputs ?? []) {
      if ((input.link ?? null) !== null && !this.graph.byInput.has(input)) this.losses.loose(node, input.name)
    }
  }

  // A bypassed sampler of theirs hands on its reference, which ours does not have.
  handOn() {
    for (const node of this.old.filter((each) => each.type === SAMPLER && each.mode === BYPASSED)) {
      const reference = this.graph.wire(node, 'reference')
      const readers = this.graph.outOf(node)
      if (!readers.length) continue
      const source = reference && this.graph.source(reference)
      if (source?.on) for (const link of readers) this.graph.begin(link, [reference.from, reference.slot])
      this.losses.bypassed(node, source?.on && source.node)
    }
  }

  loader(node) {
    const widgets = this.widgets(node)
    const first = isFirst(node)
    const wanted = first ? ofFirst(widgets) : ofSecond(widgets)
    const model = this.make('OpenSoraLoadModel', node, { model_name: wanted.model }, { title: ownTitle(node) })
    const clip = this.make('OpenSoraLoadTextEncoder', node, { text_encoder_name: wanted.clip })
    const vae = this.make('OpenSoraLoadVAE', node, { vae_name: wanted.vae })
    const part = { steps: wanted.steps, model: [model, 0], clip: [clip, 0], vae: [vae, 0], node }
    this.parts.set(node, part)
    if (first) {
      this.leadWidget(node, 'ckpt_path', [model, 'model_name'])
      this.places.set(node, [part.model, part.clip, part.vae, null])
      return
    }
    const files = {
      custom_checkpoint: [model, 'model_name'],
      custom_clip: [clip, 'text_encoder_name'],
      custom_vae: [vae, 'vae_name'],
    }
    for (const [name, target] of Object.entries(files)) if (wanted.named.has(name)) this.leadWidget(node, name, target)
    const empty = this.make('OpenSoraEmptyLatent', node, wanted.size)
    this.connect(part.vae, empty, 'vae')
    part.latent = [empty, 0]
    if (wanted.size.duration) for (const name of ['duration', 'resolution']) this.leadWidget(node, name, [empty, name])
    this.places.set(node, [null, null, null, part.clip, part.vae, [empty, 3], [empty, 1], [empty, 2], [empty, 4]])
  }

  text(node, values, part, title) {
    const made = this.make('OpenSoraTextEncode', node, values, { title })
    this.connect(part?.model, made, 'model')
    return made
  }

  textEncoder(node) {
    const widgets = this.widgets(node)
    const only = this.parts.size === 1 ? [...this.parts.values()][0] : undefined
    const part = this.loaderOf(node, 'text_encoder') ?? only
    const scored = widgets.get('enable_aesthetic_score') === 'enabled'
    const moves = widgets.get('enable_motion_strength') === 'enabled'
    const values = {
      prompt: widgets.get('positive_prompt'),
      camera_motion: widgets.get('camera_motion'),
      motion_score: moves ? widgets.get('motion_strength') : 0,
      aesthetic_score: scored ? widgets.get('aesthetic_score') : 0,
    }
    const positive = this.text(node, values, part, ownTitle(node))
    const negative = this.negative(node, widgets, part, positive)
    const texts = [positive, negative].filter((each) => each?.type === positive.type)
    this.lead(node, 'text_encoder', ...texts.map((each) => [each, 'clip']))
    this.leadWidgets(node, { positive_prompt: [positive, 'prompt'], camera_motion: [positive, 'camera_motion'] })
    if (texts.length > 1) this.leadWidget(node, 'negative_prompt', [negative, 'prompt'])
    if (scored) this.leadWidget(node, 'aesthetic_score', [positive, 'aesthetic_score'])
    if (moves) this.leadWidget(node, 'motion_strength', [positive, 'motion_score'])
    this.places.set(node, [[positive, 0], negative && [negative, 0]])
  }

  // What stands for their second output. Without words theirs takes the null caption, as our sampler does by itself.
  negative(node, widgets, part, positive) {
    const readers = this.graph.outOf(node, 1).flatMap((link) => this.graph.ends(link))
    const prompt = widgets.get('negative_prompt')
    if (!readers.length) return null
    if (prompt.trim() || this.source(node, 'negative_prompt')) return this.text(node, { prompt }, part)
    if (readers.every(({ to, input }) => to.type === SAMPLER && input.name === 'negative') || !part) return null
    const empty = this.make('OpenSoraNullPrompt', node, {})
    this.connect(part.model, empty, 'model')
    this.connect([positive, 0], empty, 'positive')
    return empty
  }

  sampler(node) {
    const widgets = this.widgets(node)
    const first = isFirst(node)
    const part = first ? this.loaderOf(node, 'scheduler', 'model', 'text_encoder', 'vae') : this.loaderOf(node, 'pipe')
    const control = widgets.get('control_after_generate')
    const strength = first ? { steps: part?.steps, cfg: CFG } : this.strength(node, widgets)
    const values = { seed: widgets.get('seed'), control_after_generate: control, denoise: 1, ...strength }
    // Bypassed, ours would hand on the empty clip.
    const handsOn = this.source(node, 'reference')?.on
    const mode = node.mode === BYPASSED && !handsOn ? MUTED : node.mode ?? 0
    const made = this.make(SAMPLER, node, values, { title: ownTitle(node), mode })
    this.places.set(node, [[made, 0]])
    this.leadWidget(node, 'seed', [made, 'seed'])
    const fed = first ? 'scheduler' : 'pipe'
    if (this.loaderOf(node, fed)) this.absorb(node, fed)
    if (first) return this.firstSampler(node, widgets, part, made)
    this.connect(part?.model, made, 'model')
    this.leadWidgets(node, { steps: [made, 'steps'], guidance: [made, 'cfg'] })
    this.prompts(node, part, made)
    this.connect(this.withReference(node, part, mode), made, 'latent')
  }

  // Steps and guidance, from the loader where they are wired to it.
  strength(node, widgets) {
    const of = (name, slot, value) => {
      const source = this.source(node, name)
      const part = source?.slot === slot ? this.parts.get(source.node) : undefined
      if (part) this.absorb(node, name)
      return part ? value(part) : widgets.get(name)
    }
    return { steps: of('steps', 1, (part) => part.steps), cfg: of('guidance', 2, () => CFG) }
  }

  // Theirs is sampler, prompt and size in one.
  firstSampler(node, widgets, part, made) {
    const text = this.text(node, { prompt: widgets.get('prompt') })
    // Their width is the first of two sides and so becomes the height of the frames.
    const size = { frames: widgets.get('num_frames'), width: widgets.get('height'), height: widgets.get('width') }
    const empty = this.make('OpenSoraEmptyLatent', node, { ...size, resolution: 'custom', fps: 8 })
    const wires = { model: [[made, 'model'], [text, 'model']], text_encoder: [[text, 'clip']], vae: [[empty, 'vae']] }
    for (const [name, targets] of Object.entries(wires)) {
      if (this.lead(node, name, ...targets)) continue
      for (const target of targets) this.connect(part?.[name === 'text_encoder' ? 'clip' : name], ...target)
    }
    const sides = { num_frames: [empty, 'frames'], width: [empty, 'height'], height: [empty, 'width'] }
    this.leadWidgets(node, { prompt: [text, 'prompt'], ...sides })
    this.connect([text, 0], made, 'positive')
    this.connect([empty, 0], made, 'latent')
    this.stepsOf(part, made)
  }

  // The wire into a loader's num_sampling_steps ends at the samplers.
  stepsOf(part, made) {
    if (!part) return
    part.samplers ??= []
    if (part.samplers.length) {
      const [before] = part.samplers
      const link = this.graph.wire(before, 'steps')
      if (link) this.connect([link.from, link.slot], made, 'steps')
    } else {
      this.leadWidget(part.node, 'num_sampling_steps', [made, 'steps'])
    }
    part.samplers.push(made)
  }

  prompts(node, part, made) {
    const positive = this.source(node, 'positive')
    if (!positive?.on || !this.lead(node, 'positive', [made, 'positive'])) {
      // As theirs, which then takes a prompt without words.
      const text = this.text(node, { prompt: '' }, part)
      this.connect(part?.clip, text, 'clip')
      this.connect([text, 0], made, 'positive')
    }
    const negative = this.source(node, 'negative')
    const isNull = negative && negative.slot === 1 && this.places.get(negative.node)?.[1] === null
    if (isNull) this.absorb(node, 'negative')
    else this.lead(node, 'negative', [made, 'negative'])
  }

  // A picture that was encoded for their `reference` becomes a keyframe at the beginning.
  withReference(node, part, mode) {
    const source = this.source(node, 'reference')
    if (source?.node.type !== ENCODER || !part?.latent) return part?.latent
    this.absorb(node, 'reference')
    // Switched off, theirs makes a clip without it: so does a keyframe that is bypassed.
    const off = isOff(source.node) || !source.on
    const state = { mode: off ? BYPASSED : mode }
    const keyframe = this.make('OpenSoraKeyframe', source.node, { frame: 0, strength: 1 }, state)
    this.connect(part.latent, keyframe, 'latent')
    this.keyframes.set(source.node, [...(this.keyframes.get(source.node) ?? []), [keyframe, part]])
    return [keyframe, 0]
  }

  decoder(node, name) {
    const made = this.make('OpenSoraVAEDecode', node, {}, { title: ownTitle(node) })
    this.lead(node, 'vae', [made, 'vae'])
    this.lead(node, name, [made, 'samples'])
    this.places.set(node, [[made, 0]])
  }

  encoder(node) {
    const keyframes = this.keyframes.get(node) ?? []
    const title = ownTitle(node)
    for (const [keyframe] of keyframes) if (title) keyframe.title = title
    const targets = keyframes.map(([keyframe]) => ({ made: keyframe, image: 'image' }))
    if (this.graph.outOf(node).length || !keyframes.length) {
      const made = this.make('OpenSoraVAEEncode', node, {}, { title })
      this.places.set(node, [[made, 0]])
      targets.unshift({ made, image: 'pixels' })
    }
    this.lead(node, 'image', ...targets.map(({ made, image }) => [made, image]))
    if (this.lead(node, 'vae', ...targets.map(({ made }) => [made, 'vae']))) return
    for (const [keyframe, part] of keyframes) this.connect(part.vae, keyframe, 'vae')
  }

  // Takes theirs out. What led from them to other nodes leads from ours; what is left of their wires is named.
  finish() {
    const { graph } = this
    for (const node of this.old) for (const link of graph.into(node)) this.loseWire(node, link)
    graph.tidy()
    for (const node of this.old) for (const link of graph.outOf(node)) this.leave(node, link)
    for (const node of this.old) graph.remove(node)
    layOut(this.made, [...graph.nodes.values()], this.groups)
    for (const [made] of this.made) graph.add(made)
    graph.write()
  }

  loseWire(node, link) {
    const source = this.sources.get(link)
    this.losses.wire(node, link.input, source, source && link.input.widget && this.worth(node, link.input.name))
    this.graph.drop(link)
  }

  // The value of a widget whose wire is left out.
  worth(node, name) {
    return new Widgets(node, (each) => this.source(node, each), () => {}).get(name)
  }

  leave(node, link) {
    const place = this.places.get(node)?.[link.slot]
    if (place) return this.graph.begin(link, place)
    for (const end of this.graph.ends(link)) this.losses.output(node, link.slot, end)
    this.graph.drop(link)
  }
}
