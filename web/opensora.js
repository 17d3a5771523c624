// The pack's extension of the page: which display goes on which node, and when they look again.

import { app } from '../../scripts/app.js'
import { addStyle, after, showInstead } from './dom.js'
import { executionIds, growToContent, keepTitleWhole, outputOf } from './graph.js'
import { watchCachedRuns } from './last_run.js'
import { registerOnce } from './once.js'
import { addSize } from './size.js'
import { addStrip } from './strip.js'
import { orderTemplates } from './templates.js'
import { addTimeline, promoteTimelines } from './timeline_widget.js'
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

// [id in a run, node] of those that show nothing yet, where one may stand in several instances of a subgraph.
const withoutReport = () =>
  [...shown.keys()].filter((node) => !outputOf(node)).flatMap((node) => executionIds(node).map((id) => [id, node]))

function report(node, output) {
  node.opensoraOutput = output
  shown.get(node)?.()
}

registerOnce({
  name: 'OpenSora.Displays',
  async init() {
    addStyle()
    orderTemplates()
    watchCachedRuns(() => withoutReport().map(([id]) => id), (id, output) => {
      for (const [other, node] of withoutReport()) if (other === id) report(node, output)
    })
    await loadWords()
  },

  beforeConfigureGraph: translateTexts,

  nodeCreated(node) {
    if (node.subgraph) promoteTimelines(node)
    if (node.comfyClass?.startsWith('OpenSora')) keepTitleWhole(node)
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
    after(node, 'onExecuted', (output) => report(node, output))
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
