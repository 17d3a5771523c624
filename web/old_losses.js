// What could not be carried over from a workflow of another Open-Sora pack, a sentence each.

import { say } from './words.js'

const nameOf = (node) => `${node.title?.trim() || node.type} (${node.id})`

export class Losses {
  sentences = []

  add(sentence) {
    this.sentences.push(sentence)
  }

  // A wire that begins nowhere.
  loose(node, input) {
    this.add(say('{node}: the wire into {input} comes from nowhere.', { node: nameOf(node), input }))
  }

  // A widget whose value the file lacks.
  value(node, input, value) {
    const values = { node: nameOf(node), input, value }
    this.add(say('{node}: {input} cannot be read in the file; it is {value} now.', values))
  }

  // A sampler that was bypassed, and the node whose value it handed on, if any.
  bypassed(node, origin) {
    const values = { node: nameOf(node), source: origin && nameOf(origin) }
    this.add(
      origin
        ? say('{node} was bypassed and handed on its reference: what read it reads {source} now.', values)
        : say('{node} was bypassed with nothing to hand on: it is muted now, which is the same.', values),
    )
  }

  // A wire into a node of theirs that ours have no place for; `value` is what a widget has had from it.
  wire(node, input, source, value) {
    if (!source) return this.loose(node, input.name)
    const values = { node: nameOf(node), input: input.name, source: nameOf(source.node), value }
    if (input.widget) {
      this.add(say('{node}: the wire from {source} into {input} is left out; its value was {value}.', values))
    } else if (input.name === 'reference') {
      this.add(say('{node}: the reference from {source} is left out. Pin pictures with Open-Sora Keyframe.', values))
    } else if (input.name === 'positive') {
      this.add(say('{node}: {source} is switched off, so the prompt has no words.', values))
    } else {
      this.add(say('{node}: the wire from {source} into {input} is left out.', values))
    }
  }

  // An output of theirs that ours do not have, and a link to where it was read.
  output(node, slot, { to, input }) {
    const values = {
      node: nameOf(to),
      input: input.name,
      output: node.outputs?.[slot]?.name ?? slot,
      source: nameOf(node),
    }
    this.add(say('{node}: nothing is wired to {input} now; it read {output} of {source}.', values))
  }
}
