// What would be kept: limits on scores and words on columns, the filter that says them, and why a row fails it.

const data = JSON.parse(document.getElementById('data').textContent)
const rows = data.rows.map((values, number) => ({
  number, ...Object.fromEntries(data.fields.map((field, place) => [field, values[place]])),
}))
const shots = rows.filter((row) => row.shot >= 0)

const limits = new Map() // score → { low, high }; either may be null
const words = { motion: new Set(), copies: false, text: '' } // camera motions and copies that are not wanted, a caption's words

const isShot = (row) => row.shot >= 0
const isOut = (row) => row.group >= 0 // by the manifest
const seconds = (row) => (row.frames > 1 && row.fps > 0 ? row.frames / row.fps : 0)
const lengthOf = (list) => list.reduce((sum, row) => sum + seconds(row), 0)

function limitsOf(score) {
  return limits.get(score) ?? { low: null, high: null }
}

function setLimit(score, side, value) {
  const both = { ...limitsOf(score), [side]: value }
  if (both.low === null && both.high === null) limits.delete(score)
  else limits.set(score, both)
}

// A text as the filter's language writes it.
const quoted = (text) => JSON.stringify(text)

// Each condition: as text, and why a row fails it; an empty reason where it passes.
function conditions() {
  const found = []
  for (const [score, { low, high }] of limits) {
    const { expression } = score
    const fails = (asked, bad) => (row) => {
      const value = score.values[row.number]
      if (value === null) return `${expression} is missing`
      return bad(value) ? `${expression} is ${shown(value)}; the filter asks for ${asked}` : ''
    }
    const parts = []
    if (low !== null) parts.push(fails(`>= ${low}`, (value) => value < low))
    if (high !== null) parts.push(fails(`<= ${high}`, (value) => value > high))
    const text = low === null ? `${expression} <= ${high}` : high === null ? `${expression} >= ${low}`
      : `${low} <= ${expression} <= ${high}`
    found.push({ text, why: (row) => parts.map((part) => part(row)).find(Boolean) ?? '' })
  }
  for (const motion of words.motion) {
    const asked = `!= ${quoted(motion)}`
    found.push({ text: `cmotion ${asked}`, why: (row) => row.motion === null ? 'cmotion is missing'
      : row.motion === motion ? `cmotion is ${quoted(motion)}; the filter asks for ${asked}` : '' })
  }
  if (words.copies) {
    found.push({ text: 'duplicate_of == ""', why: (row) => row.copy === null ? 'duplicate_of is missing'
      : row.copy ? `duplicate_of is ${quoted(row.copy)}; the filter asks for == ""` : '' })
  }
  if (words.text) {
    const asked = `${quoted(words.text)} in`
    found.push({ text: `${asked} text`, why: (row) => row.text === null ? 'text is missing'
      : row.text.includes(words.text) ? '' : `the filter asks for ${asked} text` })
  }
  return found
}

const filterText = () => conditions().map((one) => one.text).join(' and ')

// Number of a row → why the filter leaves it out; '' for what it keeps and for what is out already.
let dropped = rows.map(() => '')
// Number of a row → how many conditions it fails.
let failing = rows.map(() => 0)

function judge() {
  const all = conditions()
  dropped = rows.map(() => '')
  failing = rows.map(() => 0)
  for (const row of shots) {
    for (const { why } of all) {
      const reason = why(row)
      if (!reason) continue
      failing[row.number] += 1
      if (!isOut(row)) dropped[row.number] ||= reason
    }
  }
}

const stays = (row) => isShot(row) && !isOut(row) && !dropped[row.number]
const reasonOf = (row) => row.reason || dropped[row.number]

// Numbers as one reads them.
function shown(value) {
  if (value === null || value === undefined) return '–'
  if (Number.isInteger(value)) return value.toLocaleString('en')
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)))
}

function lasting(length) {
  if (length < 99.95) return `${length.toFixed(1)} s`
  return length < 5997 ? `${(length / 60).toFixed(1)} min` : `${(length / 3600).toFixed(1)} h`
}

const counted = (count, what) => `${count.toLocaleString('en')} ${what}${count === 1 ? '' : 's'}`
const fileName = (path) => path.split(/[\\/]/).pop()
const nameOf = (row) => (isShot(row) ? `${fileName(data.files[row.file])} · ${row.shot}` : fileName(data.files[row.file]))
