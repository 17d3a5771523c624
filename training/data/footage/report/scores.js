// Histograms with limits to drag, and buttons for what is no number: camera motions, copies, words of a caption.

const BINS = shots.length > 60 ? 44 : 22
const NS = 'http://www.w3.org/2000/svg'
const charts = []

// The scale of a score: even, or drawn out at its low end where a few values are far above the rest.
function scaleOf(values) {
  const sorted = values.filter((value) => value !== null).sort((one, other) => one - other)
  const [low, high] = [sorted[0], sorted.at(-1)]
  const usual = sorted[Math.floor(0.9 * (sorted.length - 1))]
  const unit = Math.max(sorted[sorted.length >> 1] - low, (high - low) / 1000)
  const skewed = high - low > 5 * (usual - low)
  const squeeze = skewed ? (value) => Math.asinh((value - low) / unit) : (value) => value - low
  const end = squeeze(high)
  return {
    low, high, sorted,
    place: (value) => squeeze(Math.min(Math.max(value, low), high)) / end,
    value: (place) => (skewed ? low + unit * Math.sinh(place * end) : low + place * end),
  }
}

// A round number near a place of the scale, as fine as one can point there.
function round(scale, place, whole) {
  const at = Math.min(Math.max(place, 0), 1)
  const near = Math.abs(scale.value(Math.min(at + 0.004, 1)) - scale.value(Math.max(at - 0.004, 0)))
  const step = Math.max(10 ** Math.floor(Math.log10(near)), whole ? 1 : 0)
  return Number((Math.round(scale.value(at) / step) * step).toPrecision(12))
}

function makeChart(score) {
  const scale = scaleOf(score.values)
  const whole = scale.sorted.every(Number.isInteger)
  const binOf = (value) => Math.min(Math.floor(scale.place(value) * BINS), BINS - 1)
  const bins = Array.from({ length: BINS }, () => [])
  for (const row of shots) if (score.values[row.number] !== null) bins[binOf(score.values[row.number])].push(row)
  const most = Math.max(...bins.map((bin) => bin.length))
  const missing = shots.filter((row) => score.values[row.number] === null).length
  const ranked = shots.filter((row) => score.values[row.number] !== null && data.films[row.number])
    .sort((one, other) => score.values[one.number] - score.values[other.number])

  const svg = document.createElementNS(NS, 'svg')
  svg.setAttribute('viewBox', `0 0 ${BINS} 100`)
  svg.setAttribute('preserveAspectRatio', 'none')
  svg.setAttribute('aria-hidden', 'true')
  const bars = bins.map((bin, place) => ['before', 'after', 'stays'].map((kind) => {
    const bar = document.createElementNS(NS, 'rect')
    bar.setAttribute('class', kind)
    bar.setAttribute('x', place + 0.08)
    bar.setAttribute('width', 0.84)
    svg.append(bar)
    return bar
  }))

  const fields = {}
  const handles = {}
  let active = 'low'
  const set = (side, value) => {
    const other = limitsOf(score)[side === 'low' ? 'high' : 'low']
    if (value !== null && other !== null) value = side === 'low' ? Math.min(value, other) : Math.max(value, other)
    active = side
    setLimit(score, side, value)
    changed()
  }
  // At its end of the scale a limit is none.
  const isEnd = (side, place) => (side === 'low' ? place <= 0 : place >= 1)
  const setPlace = (side, place) => set(side, isEnd(side, place) ? null : round(scale, place, whole))
  const placeOf = (side) => {
    const value = limitsOf(score)[side]
    return value === null ? (side === 'low' ? 0 : 1) : scale.place(value)
  }

  for (const [side, word] of [['low', 'least'], ['high', 'most']]) {
    handles[side] = h('div', {
      class: `handle ${side}`, role: 'slider', tabindex: 0, 'aria-label': `${score.label}: ${word}`,
      'aria-valuemin': scale.low, 'aria-valuemax': scale.high,
      onkeydown: (event) => {
        const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key]
        if (steps) setPlace(side, placeOf(side) + (steps * (event.shiftKey ? 5 : 1)) / 100)
        else if (event.key === 'Home') setPlace(side, 0)
        else if (event.key === 'End') setPlace(side, 1)
        else if (['Delete', 'Backspace'].includes(event.key)) set(side, null)
        else return
        event.preventDefault()
      },
      ondblclick: () => set(side, null),
    })
    fields[side] = h('input', {
      inputmode: 'decimal', size: 7, placeholder: shown(side === 'low' ? scale.low : scale.high),
      'aria-label': `${score.label}: ${word}, as a number`,
      onchange: ({ target }) => {
        const value = Number(target.value.replace(',', '.'))
        set(side, target.value.trim() === '' || Number.isNaN(value) ? null : value)
      },
    })
  }

  const shade = { low: h('div', { class: 'shade low' }), high: h('div', { class: 'shade high' }) }
  const plot = h('div', { class: 'plot' }, svg, shade.low, shade.high, handles.low, handles.high)
  plot.addEventListener('pointerdown', (event) => {
    const { left, width } = plot.getBoundingClientRect()
    const at = (one) => (one.clientX - left) / width
    const side = handles.low.contains(event.target) ? 'low' : handles.high.contains(event.target) ? 'high'
      : Math.abs(at(event) - placeOf('low')) <= Math.abs(at(event) - placeOf('high')) ? 'low' : 'high'
    const held = event.target === handles[side] ? at(event) - placeOf(side) : 0
    const move = (one) => setPlace(side, at(one) - held)
    handles[side].focus({ preventScroll: true })
    plot.setPointerCapture(event.pointerId)
    plot.addEventListener('pointermove', move)
    const stop = () => plot.removeEventListener('pointermove', move)
    plot.addEventListener('pointerup', stop, { once: true })
    plot.addEventListener('pointercancel', stop, { once: true })
    if (!handles[side].contains(event.target)) move(event)
    event.preventDefault()
  })
  plot.addEventListener('pointermove', ({ clientX }) => {
    const { left, width } = plot.getBoundingClientRect()
    const place = Math.min(Math.max(Math.floor((BINS * (clientX - left)) / width), 0), BINS - 1)
    const [from, to] = [place, place + 1].map((edge) => shown(Number(scale.value(edge / BINS).toPrecision(3))))
    plot.title = `${from} to ${to}: ${counted(bins[place].length, 'shot')}`
  })
  const examples = h('div', { class: 'examples' })
  const about = h('p', { class: 'about' })
  const element = h('article', { class: 'score' },
    h('h3', {}, h('span', { text: score.label }), h('code', { text: score.expression })),
    h('p', { class: 'note', text: score.note }), plot,
    h('div', { class: 'ends' }, fields.low, about, fields.high), ranked.length < 3 ? null : examples)

  let drawnExamples = ''
  // Examples from low to high; once there is a limit, those on its two sides.
  function drawExamples() {
    if (ranked.length < 3) return
    const value = limitsOf(score)[active]
    let list = Array.from({ length: 6 }, (_, place) => ranked[Math.round((place * (ranked.length - 1)) / 5)])
    let border = -1
    if (value !== null) {
      const inside = (row) => (active === 'low' ? score.values[row.number] >= value : score.values[row.number] > value)
      const first = ranked.findIndex(inside)
      const at = first < 0 ? ranked.length : first
      list = ranked.slice(Math.max(at - 3, 0), at + 3)
      border = at - Math.max(at - 3, 0)
    }
    list = [...new Set(list)]
    const next = `${list.map((row) => row.number)} ${border}`
    if (next === drawnExamples) return
    drawnExamples = next
    examples.replaceChildren(...list.map((row, place) => h('button', {
      type: 'button', class: place === border ? 'example border' : 'example', 'data-row': row.number,
      title: `${nameOf(row)}: ${shown(score.values[row.number])}`, onclick: () => openFile(row.file, row),
    }, cropped(row), h('span', { text: shown(score.values[row.number], border < 0 ? 3 : 4) }))))
  }

  function draw() {
    for (const side of ['low', 'high']) {
      const value = limitsOf(score)[side]
      handles[side].style.left = `${100 * placeOf(side)}%`
      handles[side].classList.toggle('set', value !== null)
      handles[side].setAttribute('aria-valuenow', value ?? scale[side])
      handles[side].setAttribute('aria-valuetext', value === null ? 'no limit' : String(value))
      if (document.activeElement !== fields[side]) fields[side].value = value ?? ''
    }
    shade.low.style.width = `${100 * placeOf('low')}%`
    shade.high.style.width = `${100 * (1 - placeOf('high'))}%`
    let inside = 0
    bins.forEach((bin, place) => {
      const counts = [0, 0, 0]
      for (const row of bin) counts[fate[row.number]] += 1
      inside += counts[2]
      let top = 100
      for (const kind of [2, 1, 0]) {
        // Few are seen beside many: heights by the root.
        const height = (96 * Math.sqrt(counts.slice(kind).reduce((sum, one) => sum + one, 0) / most)) - (100 - top)
        top -= height
        bars[place][kind].setAttribute('y', top)
        bars[place][kind].setAttribute('height', Math.max(height, 0))
      }
    })
    const without = missing ? `, ${missing.toLocaleString('en')} without` : ''
    about.textContent = `${inside.toLocaleString('en')} kept${without}`
    drawExamples()
  }
  charts.push(draw)
  return element
}

// What is no number: a button for each camera motion, one for copies, a field for words of captions.
function makeChips() {
  const found = []
  const motions = grouped(shots, (row) => row.motion)
  motions.delete(null)
  if (motions.size > 1) {
    found.push(h('fieldset', {}, h('legend', { text: 'Camera motion' }), ...[...motions].map(([motion, list]) => chip(
      motion, list.length, () => !words.motion.has(motion),
      () => words.motion.delete(motion) || words.motion.add(motion)))))
  }
  if (isMixed) {
    found.push(h('fieldset', {}, h('legend', { text: 'Pictures among the shots' }), chip(
      'pass limits on motion and length', pictures.length, () => words.pictures,
      () => { words.pictures = !words.pictures })))
  }
  const copies = shots.filter((row) => row.copy)
  if (copies.length) {
    found.push(h('fieldset', {}, h('legend', { text: 'Copies of other shots' }), chip(
      'keep copies', copies.length, () => !words.copies, () => { words.copies = !words.copies })))
  }
  if (shots.some((row) => row.text)) {
    const field = h('input', { type: 'search', placeholder: 'beach', 'aria-label': 'Words that captions must hold',
      oninput: () => { words.text = field.value; changed() } })
    charts.push(() => { if (field.value !== words.text) field.value = words.text })
    found.push(h('fieldset', {}, h('legend', { text: 'Caption holds' }), field))
  }
  return found
}

function grouped(list, key) {
  const found = new Map()
  for (const one of list) {
    if (!found.has(key(one))) found.set(key(one), [])
    found.get(key(one)).push(one)
  }
  return found
}

function chip(name, count, on, toggle) {
  const element = h('button', { type: 'button', class: 'chip', onclick: () => { toggle(); changed() } },
    h('span', { text: name }), h('b', { text: count.toLocaleString('en') }))
  charts.push(() => element.setAttribute('aria-pressed', on()))
  return element
}
