// Registers an extension of the page once, at however many addresses ComfyUI lists these scripts.

import { app } from '../../scripts/app.js'

// The scripts are there under the folder's name and under that of pyproject.toml, since ComfyUI cannot serve every folder
// name. Where both work each script runs twice, with modules of its own; the first to come is the extension.
export function registerOnce(extension) {
  if (app.extensions.some(({ name }) => name === extension.name)) return
  app.registerExtension(extension)
}
