// The page: what is kept at its head, and everything that follows when a limit moves.

const COLORS = ['#ff7a70', '#b98cd9', '#5fa8d3', '#63b58f', '#c9865a', '#8a93b8']

// The share of each reason of all that there is, in seconds, or in shots where nothing moves.
function drawShare() {
  const total = lengthOf(shots)
  const weight = (list) => (total ? lengthOf(list) : list.length)
  const parts = [
    ['kept', shots.filter(stays), 'var(--used)'],
    ['left out by the filter', shots.filter(isDropped), 'var(--dropped)'],
  ]
  data.reasons.forEach((reason, group) => {
    parts.push([reason, rows.filter((row) => row.group === group), COLORS[Math.min(group, COLORS.length - 1)]])
  })
  const all = parts.filter(([, list], place) => place < 2 || list.length)
  byId('share').replaceChildren(...all.filter(([, list]) => list.length).map(([name, list, color]) => {
    const part = h('i', { title: name })
    part.style.cssText = `flex-grow: ${weight(list)}; background: ${color}`
    return part
  }))
  const most = 7
  byId('legend').replaceChildren(...all.slice(0, most).map(([name, list, color]) => {
    const dot = h('i')
    dot.style.background = color
    return h('li', {}, dot, h('b', { text: list.length.toLocaleString('en') }), h('span', { text: name }))
  }), ...(all.length > most ? [h('li', { text: `and ${counted(all.length - most, 'other reason')}` })] : []))
}

function drawBar() {
  const before = shots.filter((row) => !isOut(row))
  const kept = before.filter(stays)
  const text = filterText()
  const length = lengthOf(kept)
  byId('counts').replaceChildren(
    h('b', { text: kept.length.toLocaleString('en') }),
    text ? ` of ${counted(before.length, 'shot')} would be kept`
      : kept.length === 1 ? ' shot is kept' : ' shots are kept')
  if (lengthOf(before)) {
    byId('counts').append(' · ', h('b', { text: lasting(length) }), text ? ` of ${lasting(lengthOf(before))}` : '')
  }
  byId('filter').textContent = text || 'no filter yet: drag a handle'
  byId('filter').classList.toggle('none', !text)
  byId('copy').disabled = byId('reset').disabled = !text
}

let waiting = 0

// After a limit has changed: once for each picture that the screen shows.
function changed() {
  waiting ||= requestAnimationFrame(() => {
    waiting = 0
    judge()
    for (const draw of charts) draw()
    drawBar()
    drawShare()
    mark()
    countFiles(document)
    later()
  })
}

let soon = 0

// What takes longer waits until the hand rests.
function later() {
  clearTimeout(soon)
  soon = setTimeout(() => {
    drawOut()
    if (!['all', 'drawn'].includes(sorting.show)) drawSheet()
  }, 120)
}

async function copy() {
  const text = filterText()
  try {
    await navigator.clipboard.writeText(text)
  } catch { // where the browser does not allow it: selected, to be copied by hand
    getSelection().selectAllChildren(byId('filter'))
    document.execCommand('copy')
  }
  byId('copy').textContent = 'Copied'
  setTimeout(() => { byId('copy').textContent = 'Copy filter' }, 1500)
}

function reset() {
  limits.clear()
  words.motion.clear()
  Object.assign(words, { copies: false, text: '', pictures: isMixed })
  changed()
}

document.title = `Footage: ${data.name}`
byId('name').textContent = data.name
byId('sum').textContent = `${counted(data.files.length, 'file')}, ${counted(shots.length, 'shot')}`
  + (lengthOf(shots) ? `, ${lasting(lengthOf(shots))} in all` : '')
const seen = shots.filter((row) => data.films[row.number] && !isOut(row))
byId('reel').append(...Array.from({ length: seen.length ? 24 : 0 }, (_, place) =>
  cropped(seen[Math.floor((place * seen.length) / 24)])))
byId('scores').append(...data.scores.map(makeChart))
byId('chips').append(...makeChips())
byId('scores-part').hidden = !data.scores.length && !byId('chips').children.length
byId('copy').onclick = copy
byId('reset').onclick = reset
setUpSheet()
judge()
for (const draw of charts) draw()
drawBar()
drawShare()
drawSheet()
drawFiles()
drawOut()
mark()
