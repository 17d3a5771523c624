// The pack's templates in the template browser: in order, whatever order the server's file system has.

import { app } from '../../scripts/app.js'

const FIRST = '1 Text to video'
const APP = '.app'
const LAST = '(official files)'

// Those that run at once come first, then their apps, then those that need official files.
const rank = (name) => (name.endsWith(LAST) ? 2 : name.endsWith(APP) ? 1 : 0)

export function inOrder(names, apps) {
  return names
    .filter((name) => apps || !name.endsWith(APP))
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b, 'en', { numeric: true }))
}

// Front ends without a tab for apps would open an app as a form of their own that lacks most of it.
function knowsApps() {
  return Boolean(app.extensionManager?.getSidebarTabs?.().some((tab) => tab.id === 'apps'))
}

export function orderTemplates() {
  const { api } = app
  const ask = api.getWorkflowTemplates.bind(api)
  api.getWorkflowTemplates = async (...values) => {
    const packs = await ask(...values)
    for (const [pack, names] of Object.entries(packs))
      if (names.includes(FIRST) && names.some((name) => name.endsWith(LAST))) packs[pack] = inOrder(names, knowsApps())
    return packs
  }
}
