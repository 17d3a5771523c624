// Files on their time lines, one file close up, and what is left out by its reason.

function fileRow(list) {
  const counts = h('span', { class: 'count', 'data-file': list[0].file })
  const line = list.some(isShot) ? timeLine(list, () => h('i'))
    : h('span', { class: 'reason-line', text: list[0].reason.replace(`${data.files[list[0].file]}: `, '') })
  return h('button', { type: 'button', class: 'file', onclick: () => openFile(list[0].file) },
    fileTitle(list[0], false),
    line, counts)
}

function countFiles(root) {
  for (const element of root.querySelectorAll('[data-file]')) {
    const list = filesOf[element.dataset.file].filter(isShot)
    const kept = list.filter(stays)
    const length = lengthOf(kept)
    element.textContent = list.length ? `${kept.length} of ${list.length}${length ? ` · ${lasting(length)}` : ''}` : ''
  }
}

function drawFiles() {
  grow(byId('files'), filesOf, (list) => {
    const element = fileRow(list)
    mark(element)
    countFiles(element)
    return element
  }, 40)
}

const FRAMES = 4 // of a film

// One file close up, one of its shots in full.
function openFile(number, row) {
  const list = filesOf[number]
  const dialog = byId('file')
  const first = list.find(isShot)
  const facts = first ? [`${first.width} × ${first.height}`, first.frames > 1 ? `${shown(first.fps)} fps` : 'picture',
    counted(list.filter(isShot).length, 'shot'), lasting(lengthOf(list))] : ['no shot']
  const detail = h('div', { class: 'detail' })
  const last = Math.max(1, ...list.map((one) => one.start + one.frames))
  const fits = ({ frames: count, number: of }) => { // pictures beside each other, on a line of the window's width
    const [, width, height] = data.films[of] ?? [1, 16, 9]
    return Math.ceil((Math.min(innerWidth, 1120) * count * height) / (last * 90 * width))
  }
  const line = timeLine(list, (one) => h('button', {
    type: 'button', class: 'part', 'aria-label': `shot ${one.shot}`, onclick: () => choose(one),
  }, frames(one, fits(one), fits(one) > FRAMES)))
  const choose = (one) => {
    for (const part of line.children) part.setAttribute('aria-current', Number(part.dataset.row) === one.number)
    detail.replaceChildren(...detailOf(one))
    mark(dialog)
  }
  const beside = (step) => () => openFile((number + step + filesOf.length) % filesOf.length)
  dialog.replaceChildren(
    h('div', { class: 'heading' }, h('h2', { id: 'file-name' }, fileTitle(list[0], false)),
      h('div', { class: 'tools' },
        h('button', { type: 'button', class: 'quiet', 'aria-label': 'file before', text: '‹', onclick: beside(-1) }),
        h('button', { type: 'button', class: 'quiet', 'aria-label': 'next file', text: '›', onclick: beside(1) }),
        h('button', { type: 'button', text: 'Close', onclick: () => dialog.close() }))),
    h('p', { class: 'hint', text: facts.join(' · ') }),
    h('div', { class: 'scroll' }, first ? line : h('p', { class: 'reason-line', text: list[0].reason })), detail)
  line.classList.add('large')
  line.style.minWidth = `${Math.min(48 * line.children.length, 12000)}px`
  dialog.onkeydown = ({ key, target }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key]
    const parts = [...line.children]
    const place = parts.findIndex((part) => part.getAttribute('aria-current') === 'true') + step
    if (step && parts[place] && target.closest('dialog')) {
      parts[place].focus()
      choose(rows[parts[place].dataset.row])
    }
  }
  if (!dialog.open) dialog.showModal()
  if (first) choose(row && isShot(row) ? row : first)
}

const rangeOf = (row) => (row.frames > 1
  ? `frames ${row.start} to ${row.start + row.frames - 1}, ${lasting(seconds(row))}` : 'a picture')

function detailOf(row) {
  const scores = data.scores.filter((score) => score.values[row.number] !== null)
  return [
    ...(data.films[row.number] ? [frames(row)] : []),
    h('div', { class: 'facts', 'data-row': row.number },
      h('h3', { text: `Shot ${row.shot}` }), h('p', { class: 'reason' }),
      h('p', { class: 'hint', text: rangeOf(row) }),
      row.text ? h('p', { class: 'caption', text: row.text }) : null,
      row.motion ? h('p', { class: 'hint', text: `camera: ${row.motion}` }) : null,
      row.copy ? h('p', { class: 'hint', text: `a copy of ${row.copy}` }) : null),
    h('dl', { class: 'values' }, ...scores.flatMap((score) => {
      const scale = score.scale ??= scaleOf(score.values)
      const bar = h('i')
      const value = score.values[row.number]
      bar.style.width = `${100 * scale.place(value)}%`
      return [h('dt', { text: score.label }),
        h('dd', {}, h('span', { class: 'meter' }, bar), h('b', { text: shown(value) }))]
    })),
  ]
}

// What is left out, by its reason; the largest group first, what the limits above leave out before it.
function drawOut() {
  const groups = new Map()
  for (const row of rows) {
    if (stays(row)) continue
    const reason = kindOf(row)
    const key = isOut(row) ? `before: ${reason}` : reason
    if (!groups.has(key)) groups.set(key, [reason, []])
    groups.get(key)[1].push(row)
  }
  const sorted = [...groups.values()].sort(([, one], [, other]) =>
    isOut(one[0]) - isOut(other[0]) || other.length - one.length)
  const open = new Set([...byId('out').querySelectorAll('details[open]')].map((one) => one.dataset.reason))
  byId('out').replaceChildren(...sorted.map(([reason, list]) => {
    const length = lengthOf(list)
    const inner = h('div', { class: 'out-rows' })
    const fill = () => grow(inner, list, outRow, 30)
    const element = h('details', { 'data-reason': reason, class: isOut(list[0]) ? 'before' : 'now' },
      h('summary', {}, h('b', { text: list.length.toLocaleString('en') }), h('span', { text: reason }),
        h('small', { text: `${length ? lasting(length) : ''}${isOut(list[0]) ? '' : ' by the filter above'}` })), inner)
    element.addEventListener('toggle', () => element.open && !inner.children.length && fill())
    if (open.has(reason)) { element.open = true; fill() }
    return element
  }))
  const count = sorted.reduce((sum, [, list]) => sum + list.length, 0)
  byId('out-sum').textContent = count ? '' : 'Nothing is left out.'
}

function outRow(row) {
  return h('button', { type: 'button', class: 'out-row', onclick: () => openFile(row.file, row) },
    isShot(row) ? cropped(row) : h('div', { class: 'crop' }), fileTitle(row),
    h('span', { text: reasonOf(row) }))
}
