// Workflows of two other Open-Sora packs: as one is opened, its nodes become ours. docs/old-workflows.md says which.

import { app } from '../../scripts/app.js'
import { LOADER, isOld, isTheirSampler } from './old_nodes.js'
import { Translation } from './old_translation.js'
import { registerOnce } from './once.js'
import { say } from './words.js'

const SHOWN = 12 // lines of a message

// Changes `workflow`, as a file holds it, or leaves it whole where it fails. Returns {count, types, lost}: how many of
// their nodes were taken out, {type: number} of them, and a sentence for all that could not be carried over.
export function translate(workflow) {
  // Where their pack is installed its workflows are its own; without a loader or sampler the names say too little.
  if (LOADER in LiteGraph.registered_node_types) return { count: 0, types: {}, lost: [] }
  const lost = inSubgraphs(workflow)
  const old = (workflow.nodes ?? []).filter(isOld)
  if (!old.some((node) => node.type === LOADER || isTheirSampler(node))) return { count: 0, types: {}, lost }
  const copy = JSON.parse(JSON.stringify(workflow))
  lost.push(...new Translation(copy).run())
  Object.assign(workflow, copy)
  const types = {}
  for (const { type } of old) types[type] = (types[type] ?? 0) + 1
  return { count: old.length, types, lost }
}

function inSubgraphs(workflow) {
  const holding = (workflow.definitions?.subgraphs ?? []).filter((subgraph) => subgraph.nodes?.some(isOld))
  return holding.map(({ name, id }) =>
    say('Subgraph {name}: its nodes of another Open-Sora pack stay as they are.', { name: name ?? id }),
  )
}

function tell({ count, types, lost }) {
  const add = (message) => app.extensionManager?.toast?.add({ summary: 'Open-Sora', ...message })
  if (count) {
    const replaced = Object.entries(types).map(([type, number]) => (number > 1 ? `${type} × ${number}` : type))
    const values = { count, types: replaced.join(', ') }
    const detail = say('{count} nodes of another pack were replaced: {types}. Choose files in the loaders.', values)
    add({ severity: 'info', detail, life: 8000 })
  }
  if (!lost.length) return
  console.warn(`Open-Sora: not carried over\n${lost.join('\n')}`)
  const shown = lost.slice(0, SHOWN)
  if (shown.length < lost.length) {
    shown.push(say('{count} more are listed in the browser console.', { count: lost.length - shown.length }))
  }
  add({ severity: 'warn', summary: say('Open-Sora: not carried over'), detail: shown.join('\n') })
}

registerOnce({
  name: 'OpenSora.OldWorkflows',
  beforeConfigureGraph(workflow) {
    try {
      tell(translate(workflow))
    } catch (error) {
      console.warn('Open-Sora: this workflow of another pack could not be translated', error)
      const detail = say('This workflow has nodes of another Open-Sora pack, and could not be translated.')
      app.extensionManager?.toast?.add({ severity: 'warn', summary: 'Open-Sora', detail })
    }
  },
})
