// The contact sheet: a card for each shot, sorted by any score, its film playing under the pointer.

const SHOWN = {
  all: 'all shots', drawn: 'all with a picture', stays: 'what is kept', out: 'what is left out',
  border: 'what one limit decides',
}
const sorting = { score: null, down: false, show: 'all' }

function card(row) {
  const length = seconds(row)
  const value = sorting.score?.values[row.number]
  const isTold = !sorting.score || sorting.score.expression === LENGTH
  const about = isTold ? null : h('b', { class: 'value', text: shown(value) })
  return h('button', {
    type: 'button', class: 'card', 'data-row': row.number, title: row.text ?? '',
    onclick: () => openFile(row.file, row),
  },
  h('div', { class: 'window' },
    film(row), h('span', { class: 'time', text: length ? lasting(length) : 'picture' }), about),
  h('div', { class: 'name' }, fileTitle(row)), h('p', { class: 'reason' }))
}

function listed() {
  const { score, down, show } = sorting
  const wanted = {
    all: () => true, drawn: (row) => data.films[row.number], stays, out: (row) => !stays(row),
    border: (row) => failing[row.number] === 1 && isDropped(row),
  }
  const list = shots.filter(wanted[show])
  if (!score) return down ? list.reverse() : list
  const value = (row) => score.values[row.number]
  const known = list.filter((row) => value(row) !== null).sort((one, other) => value(one) - value(other))
  return [...(down ? known.reverse() : known), ...list.filter((row) => value(row) === null)]
}

function drawSheet() {
  const list = listed()
  grow(byId('sheet'), list, (row) => {
    const element = card(row)
    mark(h('div', {}, element))
    return element
  }, 60)
  if (!list.length) byId('sheet').replaceChildren(h('p', { class: 'hint', text: 'No shots here.' }))
}

function setUpSheet() {
  const [sort, order, show] = ['sort', 'order', 'show'].map(byId)
  sort.append(h('option', { value: '', text: 'place in the file' }),
    ...data.scores.map((score, place) => h('option', { value: place, text: score.label })))
  const without = shots.filter((row) => !data.films[row.number]).length
  if (!without || without === shots.length) delete SHOWN.drawn
  else if (3 * without > shots.length) sorting.show = 'drawn'
  show.append(...Object.entries(SHOWN).map(([value, text]) => h('option', { value, text })))
  sort.onchange = () => { sorting.score = data.scores[sort.value] ?? null; drawSheet() }
  show.onchange = () => { sorting.show = show.value; drawSheet() }
  order.onclick = () => {
    sorting.down = !sorting.down
    order.setAttribute('aria-pressed', sorting.down)
    order.textContent = sorting.down ? 'high to low' : 'low to high'
    drawSheet()
  }
  show.value = sorting.show
  if (without) {
    byId('not-drawn').hidden = false
    const all = shots.length.toLocaleString('en')
    byId('not-drawn').textContent = `${counted(without, 'shot')} of ${all} have no picture here, so that this page `
      + 'can be mailed; they count everywhere.'
  }
}
