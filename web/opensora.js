// The pack's extension of the page: which display goes on which node, and when they look again.

import { app } from '../../scripts/app.js'
import { addStyle, showInstead } from './dom.js'
import { growToContent } from './graph.js'
import { addSize } from './size.js'
import { addStrip } from './strip.js'
import { addTimeline } from './timeline.js'
import { loadWords, translateTexts } from './words.js'

const DISPLAYS = {
  OpenSoraEmptyLatent: addSize,
  OpenSoraTimeline: addTimeline,
  OpenSoraKeyframe: addStrip,
  OpenSoraMaskStrategy: addStrip,
  OpenSoraFrameStrength: addStrip,
  OpenSoraMaskRegion: addStrip,
}

// Those on the canvas now: node → refresh.
const shown = new Map()
const LATER = 300 // milliseconds until the page has settled
const VUE_NEEDS = 5000 // milliseconds within which the page's Vue nodes show a graph that was loaded

// Call `act` after the node's own handler of that name.
function after(node, name, act) {
  const before = node[name]
  node[name] = function (...values) {
    const result = before?.apply(this, values)
    act(...values)
    return result
  }
}

app.registerExtension({
  name: 'OpenSora.Displays',
  async init() {
    addStyle()
    await loadWords()
  },

  beforeConfigureGraph: translateTexts,

  nodeCreated(node) {
    const display = DISPLAYS[node.comfyClass]?.(node)
    if (!display) return
    const { refresh, remove } = display
    growToContent(node)
    // Not before: copying makes nodes that are never part of a graph.
    after(node, 'onAdded', () => {
      shown.set(node, refresh)
      // Fires for every change that undo knows, so also for those of other nodes that this one looks at.
      app.api.addEventListener('graphChanged', refresh)
    })
    after(node, 'onConfigure', refresh)
    after(node, 'onConnectionsChange', refresh)
    after(node, 'onExecuted', (output) => {
      node.opensoraOutput = output
      refresh()
    })
    after(node, 'onRemoved', () => {
      app.api.removeEventListener('graphChanged', refresh)
      shown.delete(node)
      remove?.()
    })
  },

  // While a graph is loaded a node cannot see those that come after it.
  afterConfigureGraph() {
    const all = () => shown.forEach((refresh) => refresh())
    all()
    setTimeout(all, LATER)
    const until = performance.now() + VUE_NEEDS
    const place = () => {
      for (const node of shown.keys()) showInstead(node)
      if (window.LiteGraph?.vueNodesMode && performance.now() < until) requestAnimationFrame(place)
    }
    place()
  },
})
