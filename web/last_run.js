// Reports of nodes that a run took from the server's cache. Older servers do not send those again to a page that was
// loaded since: they are looked up among the earlier runs, and taken where a run had the same settings before the node.

import { app } from '../../scripts/app.js'

const RUNS = 64 // the latest ones that are searched

// The node and everything that it is made from, as text: what the server's cache goes by.
export function madeFrom(prompt, id, seen = new Map()) {
  if (seen.has(id)) return seen.get(id)
  const { class_type: kind, inputs = {} } = prompt[id] ?? {}
  seen.set(id, null)
  const from = Object.entries(inputs).map(([name, value]) =>
    Array.isArray(value) ? [name, madeFrom(prompt, String(value[0]), seen), value[1]] : [name, value])
  const text = JSON.stringify([kind, from.sort(([a], [b]) => (a < b ? -1 : 1))])
  seen.set(id, text)
  return text
}

// {id: output} for those of `ids` that an earlier run showed something for, from the same inputs. `runs` as the
// server's history has them, the latest last.
export function outputsOf(runs, prompt, ids) {
  const found = {}
  for (const id of ids) {
    const made = prompt[id] && madeFrom(prompt, id)
    const isSame = ({ outputs, prompt: [, , before] }) => outputs?.[id] && madeFrom(before, id) === made
    const run = made && runs.findLast(isSame)
    if (run) found[id] = run.outputs[id]
  }
  return found
}

// Call `show(id, output)` for every one of `idsShown()` that a run took from the cache.
export function watchCachedRuns(idsShown, show) {
  const cached = new Map()
  app.api.addEventListener('execution_cached', ({ detail }) => cached.set(detail.prompt_id, detail.nodes.map(String)))
  app.api.addEventListener('execution_success', async ({ detail }) => {
    const nodes = cached.get(detail.prompt_id) ?? []
    cached.clear()
    const wanted = idsShown().filter((id) => nodes.includes(id))
    if (!wanted.length) return
    try {
      const history = await (await app.api.fetchApi(`/history?max_items=${RUNS}`)).json()
      const prompt = history[detail.prompt_id]?.prompt[2]
      if (!prompt) return
      for (const [id, output] of Object.entries(outputsOf(Object.values(history), prompt, wanted))) show(id, output)
    } catch (error) {
      console.warn('Open-Sora: the reports of earlier runs could not be asked for', error)
    }
  })
}
