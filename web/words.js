// The page's words in the language that ComfyUI is set to. The English text is the key: say('{n} frames', { n: 17 }).

import { app } from '../../scripts/app.js'

// These scripts may run twice, at two addresses (once.js): both say the same words.
const shared = (window.openSora ??= { words: {} })

// Wanted before the first word is shown. web/words/LANGUAGE.json holds {English: translation}; English needs none.
export async function loadWords() {
  const language = app.ui?.settings?.getSettingValue?.('Comfy.Locale') ?? 'en'
  if (language === 'en') return
  try {
    const answer = await fetch(new URL(`./words/${language}.json`, import.meta.url))
    if (answer.ok) shared.words = await answer.json()
  } catch (error) {
    console.warn(`Open-Sora: the words in ${language} could not be loaded`, error)
  }
}

const filled = (text, values) =>
  (shared.words[text] ?? text).replace(/\{(\w+)\}/g, (all, name) => (name in values ? values[name] : all))

// The words for an English text, with {name} replaced by values.name; the text itself where it is not translated.
export function say(text, values = {}) {
  return filled(text, values)
}

// What a node said in words of its own: [text, values], the values in turn such words; anything else as it is.
export function sayTold(words) {
  if (!Array.isArray(words)) return words
  const [text, values] = words
  return filled(text, Object.fromEntries(Object.entries(values).map(([name, value]) => [name, sayTold(value)])))
}

const NOTES = new Set(['MarkdownNote', 'Note'])

// The texts that templates bring (notes, titles of groups and nodes), as long as nobody has changed them. In place.
export function translateTexts(workflow) {
  const said = (text) => (typeof text === 'string' ? (shared.words[text] ?? text) : text)
  for (const graph of [workflow, ...(workflow.definitions?.subgraphs ?? [])]) {
    for (const group of graph.groups ?? []) group.title = said(group.title)
    for (const node of graph.nodes ?? []) {
      if (node.title !== undefined) node.title = said(node.title)
      if (NOTES.has(node.type) && Array.isArray(node.widgets_values)) node.widgets_values[0] = said(node.widgets_values[0])
    }
  }
}
