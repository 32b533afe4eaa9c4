"use strict";

// One script in four places: the page, the worker that computes, the worklet that takes sound from the microphone, and the
// service worker by which the page opens without a network. The last lines choose.

const MODEL_FILE = "model.onnx", ABOUT_FILE = "model.json", RUNTIME = "runtime/ort.wasm.min.js";
const RUNTIME_MODULE = "runtime/ort-wasm-simd-threaded.mjs", RUNTIME_WASM = "runtime/ort-wasm-simd-threaded.wasm";
const LONGEST_MINUTES = 30; // of a recording; ast-tag hears longer ones
const SILENT_PEAK = 1e-4; // as modeling_ast.audio.silence
const DROP = 0.8; // as modeling_ast.tagging.segments
const REACH = 0.5;

class Refusal extends Error {} // whose message is for whoever looks at the page

// Resampling: the filters of modeling_ast.audio.resampling. A sample of the result is the sum of the file's samples around its
// place, weighted by a sinc under a window.

// Zeroth-order modified Bessel function.
function bessel(x) {
  let term = 1, sum = 1;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

// Where the filter cuts off, in parts of half the lower rate, how far it reaches, in samples of the lower rate, and its window.
function filterOf(resampler, from, to) {
  if (resampler === "torchaudio") {
    const cutoff = 0.99, reach = 6 / cutoff;
    return {cutoff, reach, window: (part) => Math.cos(Math.PI / 2 * part) ** 2};
  }
  // libsoxr at its high quality is a sinc under a Kaiser window. The numbers are fitted to what it makes of an impulse: of rates
  // that it converts in one stage to 1e-7 of the peak, of others to 4e-4.
  const [cutoff, beta, reach] = from <= 3 ? [0.956872, 13.04, 97] : [0.956843, 15.9785, 109.67];
  return {cutoff, reach, window: (part) => bessel(beta * Math.sqrt(Math.max(1 - part * part, 0))) / bessel(beta)};
}

function resultLength(length, from, to, resampler) {
  const exact = length * to / from;
  if (resampler === "torchaudio") return Math.ceil(Math.fround(exact));
  return Math.max(Math.floor(exact + 0.5), 1);
}

const MOST_WEIGHTS = 1 << 19; // that are kept; of rates with more, weights are interpolated
const WEIGHTS_BETWEEN = 2048; // of a sample of the lower rate
const OUTPUTS_AT_ONCE = 1 << 14;

class Resampler {
  constructor(fileRate, rate, resampler) {
    let [a, b] = [fileRate, rate];
    while (b) [a, b] = [b, a % b];
    this.from = fileRate / a;
    this.to = rate / a;
    this.resampler = resampler;
    const {cutoff, reach, window} = filterOf(resampler, this.from, this.to);
    this.scale = Math.min(this.from, this.to) / this.from;
    this.reach = reach / this.scale; // in samples of the file
    this.taps = 2 * Math.floor(this.reach) + 2;
    this.value = (distance) => { // of a sample that is so many samples of the file away
      const part = Math.abs(distance / this.reach), x = Math.PI * cutoff * distance * this.scale;
      if (part >= 1) return 0;
      return this.scale * cutoff * (x === 0 ? 1 : Math.sin(x) / x) * window(part);
    };
    this.rows = new Map();
    if (this.to * this.taps > MOST_WEIGHTS) {
      const step = this.scale * WEIGHTS_BETWEEN;
      this.step = step;
      this.table = new Float64Array(Math.ceil(this.reach * step) + 3);
      for (let place = 0; place < this.table.length; place++) this.table[place] = this.value(place / step);
    }
  }

  // Weights of the file's samples from floor(place - reach) + 1 on, for places that are so many parts of `to` behind a sample.
  weights(phase) {
    const known = this.rows.get(phase);
    if (known) return known;
    const offset = phase / this.to, first = Math.floor(offset - this.reach) + 1;
    const row = new Float64Array(this.taps);
    for (let tap = 0; tap < this.taps; tap++) {
      const distance = first + tap - offset;
      if (!this.table) {
        row[tap] = this.value(distance);
        continue;
      }
      const place = Math.min(Math.abs(distance) * this.step, this.table.length - 2), low = Math.floor(place);
      row[tap] = this.table[low] + (place - low) * (this.table[low + 1] - this.table[low]);
    }
    if (!this.table) this.rows.set(phase, row);
    return row;
  }

  // The first sample that counts for one of the result; before the file's own first one if negative.
  firstOf(number) {
    const phase = number * this.from % this.to;
    return (number * this.from - phase) / this.to + Math.floor(phase / this.to - this.reach) + 1;
  }

  convert(samples) {
    if (this.from === this.to || !samples.length) return samples;
    const length = resultLength(samples.length, this.from, this.to, this.resampler);
    const result = new Float32Array(length);
    for (let begin = 0; begin < length; begin += OUTPUTS_AT_ONCE) {
      const end = Math.min(begin + OUTPUTS_AT_ONCE, length);
      const from = this.firstOf(begin), block = new Float64Array(this.firstOf(end - 1) + this.taps - from); // twice as fast as float32
      block.set(samples.subarray(Math.max(from, 0), Math.max(from + block.length, 0)), Math.max(-from, 0));
      for (let number = begin; number < end; number++) {
        const row = this.weights(number * this.from % this.to), first = this.firstOf(number) - from;
        let a = 0, b = 0; // two sums, neither of which waits for the other; the number of weights is even
        for (let tap = 0; tap < row.length; tap += 2) {
          a += row[tap] * block[first + tap];
          b += row[tap + 1] * block[first + tap + 1];
        }
        result[number] = a + b;
      }
    }
    return result;
  }
}

const resamplers = new Map();

function resample(samples, fileRate, rate, resampler) {
  const key = `${fileRate} ${rate} ${resampler}`;
  if (!resamplers.has(key)) resamplers.set(key, new Resampler(fileRate, rate, resampler));
  return resamplers.get(key).convert(samples);
}

// One channel of several, as the model hears it: "mean", "left", "right", or a number from 1 on.
function oneChannel(channels, choice) {
  if (choice !== "mean") {
    const number = {left: 1, right: 2}[choice] ?? choice;
    if (number > channels.length) {
      throw new Refusal(`This model hears channel ${number}, and the sound has ${channels.length}. Choose another file.`);
    }
    return channels[number - 1];
  }
  if (channels.length === 1) return channels[0];
  const mean = new Float32Array(channels[0].length);
  for (let place = 0; place < mean.length; place++) {
    let sum = 0;
    for (const channel of channels) sum += channel[place];
    mean[place] = sum / channels.length;
  }
  return mean;
}

// What of a file's channels is lost in what is heard of them, in words: modeling_ast.audio.channels.

const BLOCK_SECONDS = 0.5, DROWNED = 15, NOTABLE_SHARE = 0.1, NOTHING_LEFT = 1e-8, NEARLY_SILENT = 0.01;

// Energy in blocks of so many samples, constant offsets aside.
function energies(samples, size) {
  const found = [];
  for (let begin = 0; begin < samples.length; begin += size) {
    const end = Math.min(begin + size, samples.length);
    let sum = 0, energy = 0;
    for (let place = begin; place < end; place++) sum += samples[place];
    for (let place = begin, mean = sum / (end - begin); place < end; place++) energy += (samples[place] - mean) ** 2;
    found.push(energy);
  }
  return found;
}

function channelNotes(channels, heard, choice, rate, name) {
  if (channels.length < 2 || !heard.length) return [];
  const alive = channels.flatMap((samples, place) => isSilent(samples) ? [] : [place]), number = channels.length;
  const called = (place) => number === 2 ? ["left", "right"][place] : place + 1;
  const advice = (place) => `Choose a file of channel ${called(place)} alone, or pass --channels ${called(place)} to ast-tag.`;
  if (choice !== "mean") {
    if (!alive.length || !isSilent(heard)) return [];
    return [`${name} is silent in the channel that this model hears (${choice}), and not in others. ${advice(alive[0])}`];
  }
  const size = Math.max(Math.floor(BLOCK_SECONDS * rate), 1);
  const powers = channels.map((samples) => energies(samples, size)), ofMean = energies(heard, size);
  const sum = (values) => values.reduce((all, value) => all + value, 0);
  const loudest = ofMean.map((_, block) => Math.max(...powers.map((ofChannel) => ofChannel[block])));
  const blocks = [...loudest.keys()].filter((block) => loudest[block] > 0);
  const drowned = blocks.filter((block) => DROWNED * ofMean[block] <= loudest[block]);
  const lost = sum(drowned.map((block) => loudest[block]));
  if (!drowned.length || lost < NOTABLE_SHARE * sum(loudest)) return [];
  const ofChannels = powers.map(sum), best = ofChannels.indexOf(Math.max(...ofChannels));
  if (!alive.includes(best)) return [];
  const quiet = ofChannels.filter((power) => power < NEARLY_SILENT * ofChannels[best]).length;
  const what = quiet ? `${quiet} of its ${number} channels are silent or nearly so` : `its ${number} channels cancel`;
  const left = sum(drowned.map((block) => ofMean[block])) / lost;
  let loss = "is silent";
  if (!isSilent(heard) && left >= NOTHING_LEFT) loss = `is ${(-10 * Math.log10(left)).toFixed(0)} dB quieter than the loudest of them`;
  if (drowned.length < blocks.length) {
    const length = heard.length / rate;
    loss += ` for ${Math.min(drowned.length * size / rate, length).toFixed(1)} of ${length.toFixed(1)} s`;
  }
  return [`${name}: ${what}, and their mean, which is what is heard, ${loss}. ${advice(best)}`];
}

// Windows, scores and stretches: modeling_ast.tagging.

function windowStarts(length, about) {
  const {window_samples: window, hop_samples: hop, frame_samples: frame, shift_samples: shift, step_samples: step} = about;
  const frames = (samples) => Math.floor((samples - frame) / shift) + 1;
  const starts = [];
  if (frames(length) <= frames(window)) return [0];
  for (let start = 0; start + window < length; start += hop) starts.push(start);
  starts.push(Math.ceil((length - window) / step) * step);
  return starts;
}

function isSilent(samples) {
  let lowest = Infinity, highest = -Infinity;
  for (const sample of samples) {
    if (sample < lowest) lowest = sample;
    if (sample > highest) highest = sample;
  }
  return highest - lowest <= 2 * SILENT_PEAK;
}

function runsOfTrue(flags) {
  const runs = [];
  let first = -1;
  for (let place = 0; place <= flags.length; place++) {
    if (flags[place] && first < 0) first = place;
    if (!flags[place] && first >= 0) {
      runs.push([first, place - 1]);
      first = -1;
    }
  }
  return runs;
}

// Mean scores of the windows that cover each stretch between two of their starts or ends.
function hopMeans(scores, begins, ends) {
  const edges = [...new Set([...begins, ...ends])].sort((a, b) => a - b), labels = scores[0].length;
  const sums = [new Float64Array(labels)];
  for (const row of scores) sums.push(sums.at(-1).map((sum, label) => sum + row[label]));
  const means = [];
  let first = 0, after = 0;
  for (const edge of edges.slice(0, -1)) {
    while (first < ends.length && ends[first] <= edge) first++;
    while (after < begins.length && begins[after] <= edge) after++;
    means.push(Float32Array.from(sums[after], (sum, label) => (sum - sums[first][label]) / (after - first)));
  }
  return {edges, means};
}

function drawIn(means, label, edges, [first, last], reach) {
  const places = Array.from({length: last - first + 1}, (_, place) => first + place);
  const kept = (near) => {
    const highest = Math.max(...near.map((place) => means[place][label]));
    return near.filter((place) => means[place][label] >= DROP * highest);
  };
  const start = kept(places.filter((place) => edges[place] < edges[first] + reach))[0];
  return [start, kept(places.filter((place) => edges[place + 1] > edges[last + 1] - reach)).at(-1)];
}

// Stretches of one run of places with scores; of a model of frames there is no reach. With `whole` there is no other run, and
// gaps are closed here, over what has scores.
function stretchesOf({edges, means}, reach, whole, about) {
  const found = [];
  const best = means.map((row) => row.indexOf(Math.max(...row)));
  for (let label = 0; label < about.labels.length; label++) {
    const on = about.on[label], off = about.off[label];
    const active = means.map((row, place) => row[label] >= on && (!about.exclusive || best[place] === label));
    const held = active.map((is, place) => is || (off !== null && means[place][label] >= off));
    const begun = [], gap = whole ? about.gap_samples[label] : null;
    for (let [first, last] of runsOfTrue(held)) {
      while (first <= last && !active[first]) first++;
      if (first > last) continue;
      if (reach !== null) [first, last] = drawIn(means, label, edges, [first, last], reach);
      if (gap !== null && begun.length && edges[first] - edges[begun.at(-1)[1] + 1] <= gap) begun.at(-1)[1] = last;
      else begun.push([first, last]);
    }
    for (const [first, last] of begun) {
      let sum = 0;
      for (let place = first; place <= last; place++) sum += means[place][label] * (edges[place + 1] - edges[place]);
      const [start, end] = [edges[first], edges[last + 1]];
      found.push({label, start, end, score: sum / (end - start)});
    }
  }
  return found;
}

// Of several runs: those of a label that touch are one, and gaps are closed. Then short ones are left out.
function eventsOf(found, whole, about) {
  const events = [];
  let scored = 0; // samples of the last event that have scores
  for (const stretch of found.sort((a, b) => a.label - b.label || a.start - b.start)) {
    const last = events.at(-1), gap = Math.max(about.gap_samples[stretch.label] ?? 0, 0), length = stretch.end - stretch.start;
    if (!whole && last?.label === stretch.label && stretch.start - last.end <= gap) {
      last.score = (last.score * scored + stretch.score * length) / (scored + length);
      scored += length;
      last.end = stretch.end;
    } else {
      events.push({...stretch});
      scored = length;
    }
  }
  return events.filter((event) => event.end - event.start >= about.min_samples[event.label]);
}

// Scores of the whole and what is heard where. `rows` are the scores of the windows, of which silent ones have none.
function foundIn(rows, starts, length, about) {
  const scored = rows.filter((row) => row);
  if (!scored.length) return {scores: null, stretches: []};
  const runs = about.columns ? placesOf(rows, starts, length, about) : runsOfTrue(rows.map((row) => row !== null)).map(([first, last]) => {
    const begins = starts.slice(first, last + 1);
    return hopMeans(rows.slice(first, last + 1), begins, begins.map((begin) => Math.min(begin + about.window_samples, length)));
  }).flatMap((run) => partsWithSound(run, starts.filter((_, number) => !rows[number]), length, about));
  const scores = about.columns ? meanOfTime(runs, about) : Float32Array.from(about.labels, (_, label) => {
    let sum = 0;
    for (const row of scored) sum += row[label];
    return sum / scored.length;
  });
  const reach = about.columns ? null : REACH * about.window_samples, whole = runs.length === 1;
  const found = runs.flatMap((run) => stretchesOf(about.columns ? smoothed(run, about) : run, reach, whole, about));
  const stretches = eventsOf(found, whole, about);
  stretches.sort((a, b) => a.start - b.start || a.end - b.end || a.label - b.label);
  return {scores, stretches};
}

// Without what lies in silent windows, which begin at `silent`; modeling_ast.tagging.segments.parts_with_sound.
function partsWithSound({edges, means}, silent, length, about) {
  const ends = silent.map((begin) => Math.min(begin + about.window_samples, length));
  const within = [...silent, ...ends].filter((cut) => cut > edges[0] && cut < edges.at(-1));
  const cuts = [...new Set([...edges, ...within])].sort((a, b) => a - b);
  const sounds = cuts.slice(0, -1).map((cut) => !silent.some((begin, number) => begin <= cut && cut < ends[number]));
  let place = 0;
  const scores = cuts.slice(0, -1).map((cut) => {
    while (edges[place + 1] <= cut) place++;
    return means[place];
  });
  return runsOfTrue(sounds).map(([first, last]) => ({edges: cuts.slice(first, last + 2), means: scores.slice(first, last + 1)}));
}

// Of a model with a frame head: the mean of the columns of all windows that stand for the same time; modeling_ast.tagging.frames.
function placesOf(rows, starts, length, about) {
  const {seconds, first_edge: firstEdge, patch_size: patch, time_stride: stride} = about.columns, labels = about.labels.length;
  const firstOf = (start) => Math.round(start / (seconds * about.sampling_rate));
  const afterOf = (start) => {
    const samples = Math.max(Math.min(about.window_samples, length - start), about.frame_samples);
    const frames = Math.floor((samples - about.frame_samples) / about.shift_samples) + 1;
    return firstOf(start) + Math.max(Math.floor((frames - patch) / stride) + 1, 1);
  };
  const count = afterOf(starts.at(-1));
  const sums = new Float32Array(count * labels), counts = new Uint16Array(count);
  rows.forEach((row, number) => {
    if (!row) return;
    const first = firstOf(starts[number]), after = afterOf(starts[number]);
    for (let place = first; place < after; place++) counts[place]++;
    for (let value = 0; value < (after - first) * labels; value++) sums[first * labels + value] += row[value];
  });
  const edges = Array.from({length: count + 1}, (_, place) => Math.round((firstEdge + place * seconds) * about.sampling_rate));
  edges[0] = 0;
  edges[count] = length;
  rows.forEach((row, number) => {
    const begin = starts[number], end = Math.min(begin + about.window_samples, length);
    for (let place = firstOf(begin); !row && place < count && edges[place + 1] <= end; place++) if (edges[place] >= begin) counts[place] = 0;
  });
  return runsOfTrue([...counts]).map(([first, last]) => ({
    edges: edges.slice(first, last + 2),
    means: Array.from({length: last - first + 1}, (_, place) => sums.slice((first + place) * labels, (first + place + 1) * labels).map((sum) => sum / counts[first + place])),
  }));
}

function meanOfTime(runs, about) {
  const sums = new Float64Array(about.labels.length);
  let time = 0;
  if (!runs.length) return null;
  for (const {edges, means} of runs) {
    means.forEach((row, place) => row.forEach((score, label) => { sums[label] += score * (edges[place + 1] - edges[place]); }));
    time += edges.at(-1) - edges[0];
  }
  return Float32Array.from(sums, (sum) => sum / time);
}

// The median over so many places; beyond the ends the outermost scores go on.
function smoothed({edges, means}, about) {
  const smooth = means.map((row) => row.slice());
  about.median_columns.forEach((width, label) => {
    if (width === 1) return;
    for (let place = 0; place < means.length; place++) {
      const near = [];
      for (let by = -(width - 1) / 2; by <= (width - 1) / 2; by++) near.push(means[Math.max(0, Math.min(means.length - 1, place + by))][label]);
      smooth[place][label] = near.sort((a, b) => a - b)[(width - 1) / 2];
    }
  });
  return {edges, means: smooth};
}

// Labels that count, in the order of the table.
function counting(scores, about) {
  if (about.exclusive) return new Set([scores.indexOf(Math.max(...scores))]);
  return new Set([...about.labels.keys()].filter((label) => scores[label] >= about.thresholds[label]));
}

// Files: WAV is read here, as the kit reads it; others by the browser, told the file's own rate, so that it does not resample.

const text = (view, place, length) => {
  let word = "";
  for (let byte = place; byte < Math.min(place + length, view.byteLength); byte++) word += String.fromCharCode(view.getUint8(byte));
  return word;
};

const PCM = 1, FLOAT = 3, EXTENSIBLE = 0xfffe;
const READERS = {
  "1 8": (view, at) => (view.getUint8(at) - 128) / 128,
  "1 16": (view, at) => view.getInt16(at, true) / 32768,
  "1 24": (view, at) => (view.getUint16(at, true) | view.getInt8(at + 2) << 16) / 8388608,
  "1 32": (view, at) => view.getInt32(at, true) / 2147483648,
  "3 32": (view, at) => view.getFloat32(at, true),
  "3 64": (view, at) => view.getFloat64(at, true),
};

// Which bytes of a WAV are samples: modeling_ast.audio.sample_regions. Programs that write to a pipe or die leave sizes that are 0,
// unknown or of an earlier time.

const UNKNOWN_SIZE = 0x7fff0000;
const LONGEST_HEADER = 128; // bytes that a size may be wrong by without a word
const TRAILERS = ["TAG", "ID3", "APETAGEX", "LYRICSBEGIN", "3DI"]; // as modeling_ast.audio.tags

// Whether the rest of a file, if there is any, is chunks up to its end.
function chunksFollow(view, begin) {
  let place = begin, isPadded = true;
  while (place + 8 <= view.byteLength) {
    const size = view.getUint32(place + 4, true);
    if (/^[ -~]{4}$/.test(text(view, place, 4))) {
      place += 8 + size + size % 2;
      isPadded = size % 2 === 0;
    } else if (isPadded) return false;
    else {
      place--; // some programs leave the padding out
      isPadded = true;
    }
  }
  return place <= view.byteLength + 1 && !/[^\0]/.test(text(view, place, 8));
}

function isConstant(view, begin) {
  for (let place = begin + 1; place < view.byteLength; place++) if (view.getUint8(place) !== view.getUint8(begin)) return false;
  return true;
}

// How many bytes of samples begin at a place, and how many bytes a header announces that is wrong (`said`) or true (`announced`).
function sampleBytes(view, begin, size) {
  const present = view.byteLength - begin, end = begin + size;
  if (size >= UNKNOWN_SIZE && size > present) return {bytes: present};
  if (size === 0 && present && !chunksFollow(view, begin)) return {bytes: present, said: 0};
  const isLonger = present - size > Math.min(begin, LONGEST_HEADER);
  const isNoSound = isLonger && [end, end + end % 2].some(
    (place) => chunksFollow(view, place) || TRAILERS.some((tag) => text(view, place, 16).startsWith(tag)));
  if (isLonger && !isNoSound && !isConstant(view, end)) return {bytes: present, said: size};
  return {bytes: Math.min(size, present), announced: size};
}

function readWav(buffer, name) {
  const view = new DataView(buffer);
  let format = null;
  for (let place = 12; place + 8 <= view.byteLength;) {
    const kind = text(view, place, 4), size = view.getUint32(place + 4, true), body = place + 8;
    if (kind === "fmt " && body + 16 <= view.byteLength) {
      let code = view.getUint16(body, true);
      if (code === EXTENSIBLE && size >= 26 && body + 26 <= view.byteLength) code = view.getUint16(body + 24, true);
      format = {code, channels: view.getUint16(body + 2, true), rate: view.getUint32(body + 4, true), bits: view.getUint16(body + 14, true)};
    }
    if (kind === "data" && format) {
      const read = READERS[`${format.code} ${format.bits}`];
      if (!read || !format.channels) return null;
      const bytes = format.bits / 8, frame = bytes * format.channels;
      const {bytes: there, said, announced} = sampleBytes(view, body, size), tolerated = Math.min(body, LONGEST_HEADER);
      const length = Math.floor(there / frame), inSeconds = (bytes) => (bytes / frame / format.rate).toFixed(2);
      checkLength(length / format.rate);
      const notes = [];
      if (Math.abs(there - said) > tolerated) {
        notes.push(`${name} has a wrong header: it announces ${inSeconds(said)} s of samples; ${inSeconds(there)} s are there, which are heard.`);
      }
      if (announced - there > tolerated) {
        notes.push(`${name} is cut off: ${inSeconds(there)} of the ${inSeconds(announced)} s that its header announces are there. Copy or download it again.`);
      }
      const channels = Array.from({length: format.channels}, (_, channel) => {
        const samples = new Float32Array(length);
        for (let number = 0, at = body + channel * bytes; number < length; number++, at += frame) samples[number] = read(view, at);
        return samples;
      });
      return {channels, rate: format.rate, notes};
    }
    place = body + size + size % 2;
  }
  return null;
}

function checkLength(seconds) {
  if (!(seconds > LONGEST_MINUTES * 60)) return;
  const minutes = Math.round(seconds / 60);
  throw new Refusal(`This sound lasts ${minutes} minutes; the page hears up to ${LONGEST_MINUTES}. Cut it, or use ast-tag, which hears any length.`);
}

const MP3_RATES = [[11025, 12000, 8000], null, [22050, 24000, 16000], [44100, 48000, 32000]];
const AAC_RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];

// The sampling rate that a file's header names, or null.
function rateOf(buffer) {
  const view = new DataView(buffer), size = view.byteLength;
  if (size < 32) return null;
  const begin = text(view, 0, 4);
  if (begin === "RIFF" || begin === "RF64") {
    for (let place = 12; place + 16 < size; place += 8 + view.getUint32(place + 4, true)) {
      if (text(view, place, 4) === "fmt ") return view.getUint32(place + 12, true);
    }
    return null;
  }
  if (begin === "fLaC") return view.getUint32(18) >>> 12;
  if (begin === "OggS") {
    const head = text(view, 0, Math.min(size, 4096));
    if (head.includes("OpusHead")) return 48000;
    const vorbis = head.indexOf("\x01vorbis"), flac = head.indexOf("fLaC");
    if (vorbis >= 0 && vorbis + 16 <= size) return view.getUint32(vorbis + 12, true);
    return flac >= 0 && flac + 22 <= size ? view.getUint32(flac + 18) >>> 12 : null;
  }
  if (text(view, 4, 4) === "ftyp") return rateOfMp4(view, 0, size);
  if (view.getUint32(0) === 0x1a45dfa3) return rateOfMatroska(view);
  let place = 0;
  while (text(view, place, 3) === "ID3" && place + 10 < size) {
    const bytes = [6, 7, 8, 9].map((at) => view.getUint8(place + at) & 127);
    place += 10 + (bytes[0] << 21 | bytes[1] << 14 | bytes[2] << 7 | bytes[3]);
  }
  if (text(view, place, 4) === "fLaC" && place + 22 <= size) return view.getUint32(place + 18) >>> 12;
  for (const end = Math.min(place + 65536, size - 4); place < end; place++) {
    if (view.getUint8(place) !== 0xff || view.getUint8(place + 1) < 0xe0) continue;
    const second = view.getUint8(place + 1), third = view.getUint8(place + 2);
    if ((second & 0xf6) === 0xf0) return AAC_RATES[third >> 2 & 15] ?? null; // ADTS
    const rates = MP3_RATES[second >> 3 & 3], rate = rates?.[third >> 2 & 3];
    if (rate && (second >> 1 & 3) && (third >> 4) !== 15) return rate;
  }
  return null;
}

function rateOfMp4(view, begin, end) {
  for (let place = begin; place + 8 <= end;) {
    let size = view.getUint32(place), head = 8;
    if (size === 1 && place + 16 <= end) [size, head] = [Number(view.getBigUint64(place + 8)), 16];
    if (size === 0) size = end - place;
    if (size < head) return null;
    const kind = text(view, place + 4, 4), inner = place + head, stop = Math.min(place + size, end);
    const isOther = kind === "trak" && !text(view, inner, Math.min(stop - inner, 4096)).includes("soun"); // a picture's
    // Not the sample entry's rate: that of AAC with spectral band replication is half of what comes out of it.
    if (kind === "mdhd" && inner + 24 <= stop) return view.getUint32(inner + (view.getUint8(inner) === 1 ? 20 : 12));
    if (["moov", "trak", "mdia"].includes(kind) && !isOther) {
      const found = rateOfMp4(view, inner, stop);
      if (found) return found;
    }
    place += size;
  }
  return null;
}

function rateOfMatroska(view) {
  const head = text(view, 0, Math.min(view.byteLength, 65536));
  if (head.includes("A_OPUS")) return 48000;
  // The rate that is put out, 78b5, which is twice SamplingFrequency, b5, where AAC has its upper half by spectral band replication; each with a
  // size of 4 or 8 bytes. The same bytes are found in other places, too, where they tell no rate.
  for (const name of [/\x78\xb5(?=[\x84\x88])/g, /\xb5(?=[\x84\x88])/g]) {
    for (const found of head.matchAll(name)) {
      const at = found.index + found[0].length, size = view.getUint8(at) & 127;
      if (at + 1 + size > view.byteLength) break;
      const rate = size === 4 ? view.getFloat32(at + 1) : view.getFloat64(at + 1);
      if (Number.isInteger(rate) && rate >= LEAST_RATE && rate <= LARGEST_RATE) return rate;
    }
  }
  return null;
}

const LEAST_RATE = 3000, LARGEST_RATE = 768000; // that a browser decodes at
const USUAL_RATES = [48000, 44100];

// Chromium makes floats of 16-bit samples by 1/32768 below zero and by 1/32767 above, which is a distortion that quiet bands of a loud
// clip show. Where all samples are of that kind, they become what every other decoder gives.
function undoUnevenScale(samples) {
  const isWhole = (value) => Math.abs(value - Math.round(value)) <= 1e-6 * Math.abs(value); // float32 is 6e-8 off, the other scale 3e-5
  if (!samples.every((sample) => isWhole(sample * (sample > 0 ? 32767 : 32768)))) return;
  samples.forEach((sample, at) => {
    if (sample > 0) samples[at] = Math.round(sample * 32767) / 32768;
  });
}

async function readSound(file) {
  if (!file.size) throw new Refusal(`${file.name} is empty. Choose another file.`);
  const buffer = await file.arrayBuffer();
  const view = new DataView(buffer);
  const isWav = text(view, 0, 4) === "RIFF" && text(view, 8, 4) === "WAVE";
  const wav = isWav ? readWav(buffer, file.name) : null;
  if (wav) return wav;
  const rate = rateOf(buffer), notes = [];
  const context = (wanted) => new OfflineAudioContext(1, 1, wanted);
  let decoder, decoded;
  try {
    decoder = context(rate ?? USUAL_RATES[0]);
  } catch {
    decoder = context(USUAL_RATES[0]);
  }
  if (decoder.sampleRate !== rate) {
    notes.push(`The browser resampled this file to ${decoder.sampleRate} Hz, as ${rate ? `it has none of ${rate} Hz` : "its header names no rate"}: scores may differ from those of ast-tag.`);
  }
  try {
    decoded = await decoder.decodeAudioData(buffer);
  } catch {
    throw new Refusal(`This browser cannot decode ${file.name}: it is no sound, damaged, or of a format that the browser does not know. Convert it, for example to WAV or FLAC.`);
  }
  checkLength(decoded.duration);
  const channels = Array.from({length: decoded.numberOfChannels}, (_, channel) => decoded.getChannelData(channel));
  channels.forEach(undoUnevenScale);
  return {channels, rate: decoded.sampleRate, notes};
}

// 16-bit WAV of one channel, for the player.
function wavOf(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (place, letters) => [...letters].forEach((letter, at) => view.setUint8(place + at, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, PCM, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, number) => view.setInt16(44 + 2 * number, Math.max(-32768, Math.min(32767, Math.round(sample * 32768))), true));
  return new Blob([view], {type: "audio/wav"});
}

// The spectrogram that is shown: mel bands of Hann windows.

function fourier(real, imaginary) {
  const size = real.length;
  for (let place = 1, other = 0; place < size; place++) {
    let bit = size >> 1;
    for (; other & bit; bit >>= 1) other ^= bit;
    other ^= bit;
    if (place < other) [real[place], real[other]] = [real[other], real[place]];
  }
  for (let length = 2; length <= size; length <<= 1) {
    for (let step = 0, half = length / 2; step < half; step++) {
      const cosine = Math.cos(2 * Math.PI * step / length), sine = -Math.sin(2 * Math.PI * step / length);
      for (let first = step; first < size; first += length) {
        const second = first + half;
        const re = real[second] * cosine - imaginary[second] * sine, im = real[second] * sine + imaginary[second] * cosine;
        real[second] = real[first] - re;
        imaginary[second] = imaginary[first] - im;
        real[first] += re;
        imaginary[first] += im;
      }
    }
  }
}

// Decibels of `bands` mel bands at `columns` places along the samples, from low to high.
function spectrogramOf(samples, rate, columns, bands) {
  const size = 2 ** Math.ceil(Math.log2(0.025 * rate)), used = Math.round(0.025 * rate);
  const mel = (hertz) => 1127 * Math.log(1 + hertz / 700);
  const edges = Array.from({length: bands + 2}, (_, band) => 700 * Math.expm1((mel(20) + (mel(rate / 2) - mel(20)) * band / (bands + 1)) / 1127) * size / rate);
  const window = Float64Array.from({length: used}, (_, place) => 0.5 - 0.5 * Math.cos(2 * Math.PI * place / (used - 1)));
  return Array.from({length: columns}, (_, column) => {
    const begin = Math.round((samples.length - used) * (columns > 1 ? column / (columns - 1) : 0));
    const real = new Float64Array(size), imaginary = new Float64Array(size);
    for (let place = 0; place < used; place++) real[place] = window[place] * (samples[begin + place] ?? 0);
    fourier(real, imaginary);
    return Float32Array.from({length: bands}, (_, band) => {
      let sum = 1e-12;
      const [low, middle, high] = edges.slice(band, band + 3);
      const from = Math.min(Math.ceil(low), Math.round(middle)), to = Math.max(Math.floor(high), Math.round(middle));
      for (let bin = from; bin <= to; bin++) {
        const weight = Math.max(Math.min((bin - low) / (middle - low), (high - bin) / (high - middle)), bin === Math.round(middle) ? 0.1 : 0);
        sum += weight * (real[bin] ** 2 + imaginary[bin] ** 2);
      }
      return 10 * Math.log10(sum);
    });
  });
}

const COLOURS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]; // magma's
const SHOWN_DECIBELS = 80;

function draw(canvas, columns) {
  const bands = columns[0].length, image = new ImageData(columns.length, bands);
  let highest = -Infinity;
  for (const column of columns) for (const value of column) highest = Math.max(highest, value);
  columns.forEach((column, x) => column.forEach((value, band) => {
    const part = Math.max(0, Math.min(1, 1 + (value - highest) / SHOWN_DECIBELS)) * (COLOURS.length - 1);
    const low = Math.min(Math.floor(part), COLOURS.length - 2), at = 4 * ((bands - 1 - band) * columns.length + x);
    for (let colour = 0; colour < 3; colour++) {
      image.data[at + colour] = COLOURS[low][colour] + (part - low) * (COLOURS[low + 1][colour] - COLOURS[low][colour]);
    }
    image.data[at + 3] = 255;
  }));
  canvas.width = columns.length;
  canvas.height = bands;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// The worker.

const cacheName = () => `ast-page ${new URL("./", self.location.href).pathname}`;

// A large file, from the cache if it was fetched before; `say` is told the bytes.
async function large(name, digest, say) {
  const url = new URL(`${name}?v=${digest.slice(0, 16)}`, self.location.href).href;
  const cache = self.caches ? await caches.open(cacheName()).catch(() => null) : null;
  let response = await cache?.match(url);
  if (!response) {
    response = await fetch(url).catch(() => null);
    if (!response) throw new Refusal(`${name} could not be loaded: there is no network, and the browser has not kept it. Load the page again with a network.`);
    if (!response.ok) throw new Refusal(`${name} could not be loaded (${response.status}). Put all files of the page in one folder of the server.`);
  }
  const parts = [], reader = response.body.getReader();
  let length = 0;
  for (let part; !(part = await reader.read()).done;) {
    parts.push(part.value);
    say(length += part.value.length);
  }
  const blob = new Blob(parts), bytes = await blob.arrayBuffer();
  if (self.crypto?.subtle) {
    const found = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const hexadecimal = Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hexadecimal !== digest) throw new Refusal(`${name} is not the file that belongs to this page: it is damaged, or of another export. Put it on the server again.`);
  }
  if (cache) {
    try {
      for (const key of await cache.keys()) if (key.url.split("?")[0] === url.split("?")[0] && key.url !== url) await cache.delete(key);
      if (!await cache.match(url)) await cache.put(url, new Response(blob));
    } catch {} // no room: the page works, but not without a network
  }
  return bytes;
}

const BETWEEN_NEWS = 100; // ms

function inWorker() {
  let about, session, latest = 0;

  async function load(given) {
    about = given;
    const sizes = [about.files[RUNTIME_WASM].bytes, about.files[MODEL_FILE].bytes], all = sizes[0] + sizes[1];
    const say = (before) => (bytes) => postMessage({kind: "loading", part: (before + bytes) / all});
    importScripts(RUNTIME);
    const wasm = await large(RUNTIME_WASM, about.files[RUNTIME_WASM].sha256, say(0));
    const model = await large(MODEL_FILE, about.files[MODEL_FILE].sha256, say(sizes[0]));
    ort.env.wasm.numThreads = 1; // more need headers that static hosts do not send
    ort.env.wasm.wasmPaths = new URL("runtime/", self.location.href).href;
    ort.env.wasm.wasmBinary = wasm;
    ort.env.logLevel = "error";
    try {
      session = await ort.InferenceSession.create(new Uint8Array(model), {executionProviders: ["wasm"]});
    } catch (error) {
      const megabytes = Math.round(sizes[1] / 1e6);
      throw new Refusal(`The model (${megabytes} MB) could not be opened; this device may have too little memory for it. ${error.message ?? error}`);
    }
    // The first time takes longer.
    await score(new Float32Array(about.window_samples));
    for (const rate of USUAL_RATES) resample(new Float32Array(rate / 50), rate, about.sampling_rate, about.resampler);
  }

  async function score(samples) {
    const given = {
      waveform: new ort.Tensor("float32", samples, [1, samples.length]),
      lengths: new ort.Tensor("int64", [BigInt(samples.length)], [1]),
    };
    const {scores} = await session.run(given);
    if (!scores.data.every(Number.isFinite)) throw new Refusal("The scores are no numbers: the samples may be far beyond full scale. Export the sound again, for example as 16-bit WAV.");
    return Float32Array.from(scores.data);
  }

  function heard(samples, rate) {
    const sound = resample(samples, rate, about.sampling_rate, about.resampler);
    if (sound.length < about.frame_samples) throw new Refusal(`This sound lasts ${Math.round(1000 * sound.length / about.sampling_rate)} ms; the model needs 25 ms.`);
    return sound;
  }

  async function hear({id, samples, rate}) {
    const began = performance.now();
    const sound = heard(samples, rate);
    const starts = windowStarts(sound.length, about), rows = [];
    let shown = began;
    for (const start of starts) {
      const window = sound.slice(start, start + about.window_samples);
      rows.push(isSilent(window) ? null : await score(window));
      if (performance.now() < shown + BETWEEN_NEWS) continue;
      shown = performance.now();
      postMessage({kind: "hearing", id, part: rows.length / starts.length});
      await new Promise((go) => setTimeout(go)); // so that a newer sound is noticed
      if (id !== latest) return;
    }
    const found = foundIn(rows, starts, sound.length, about);
    const milliseconds = performance.now() - began;
    postMessage({kind: "heard", id, ...found, silent: rows.filter((row) => !row).length, windows: rows.length, sound, milliseconds}, [sound.buffer]);
  }

  async function glance({id, samples, rate}) {
    const began = performance.now();
    const sound = heard(samples, rate);
    const scores = isSilent(sound) ? null : foundIn([await score(sound)], [0], sound.length, about).scores;
    postMessage({kind: "glanced", id, scores, sound, milliseconds: performance.now() - began});
  }

  let queue = Promise.resolve();
  self.onmessage = ({data}) => {
    if (data.id) latest = data.id;
    queue = queue.then(async () => {
      try {
        if (data.kind === "load") {
          await load(data.about);
          postMessage({kind: "ready"});
        } else if (data.id === latest) await (data.kind === "hear" ? hear(data) : glance(data));
      } catch (error) {
        const words = error instanceof Refusal ? error.message : `That went wrong: ${error.message ?? error}`;
        postMessage({kind: "failed", id: data.id, loading: data.kind === "load", words});
      }
    });
  };
}

// The worklet: the mean of the microphone's channels, in blocks.

function inWorklet() {
  registerProcessor("microphone", class extends AudioWorkletProcessor {
    constructor() {
      super();
      this.block = new Float32Array(2048);
      this.filled = 0;
    }

    process([channels]) {
      if (!channels.length) return true;
      for (let place = 0; place < channels[0].length; place++) {
        let sum = 0;
        for (const channel of channels) sum += channel[place];
        this.block[this.filled++] = sum / channels.length;
        if (this.filled < this.block.length) continue;
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
      return true;
    }
  });
}

// The service worker: small files from the network if there is one, and as they were else; large ones the worker keeps.

function inServiceWorker() {
  const small = ["./", "page.js", "page.css", ABOUT_FILE, RUNTIME, RUNTIME_MODULE, "runtime/LICENSE"];
  self.addEventListener("install", (event) => {
    self.skipWaiting();
    event.waitUntil(caches.open(cacheName()).then((cache) => cache.addAll(small.map((name) => new Request(name, {cache: "reload"})))));
  });
  self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
  self.addEventListener("fetch", (event) => {
    const url = new URL(event.request.url), here = new URL("./", self.location.href);
    const name = url.origin + url.pathname.replace(/\/index\.html$/, "/");
    if (event.request.method !== "GET" || !small.some((each) => new URL(each, here).href === name)) return;
    event.respondWith((async () => {
      const cache = await caches.open(cacheName());
      try {
        const response = await fetch(event.request, {cache: "reload"}); // files of two exports do not go together, whatever their dates
        if (response.ok) await cache.put(name, response.clone());
        return response;
      } catch (error) {
        const kept = await cache.match(name);
        if (kept) return kept;
        throw error;
      }
    })());
  });
}

// The page.

// A module with one 128-bit constant.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);
const LIVE_SECONDS = 0.25; // of new sound, at least, between two looks at it

function inPage() {
  const at = (id) => document.getElementById(id);
  const seconds = (value) => `${value.toFixed(2)} s`, percent = (value) => `${(100 * value).toFixed(1)}%`;
  const player = at("player");
  let about, worker, ready, microphone = null, turn = 0, shown = null;

  const say = (words) => { if (at("status").textContent !== words) at("status").textContent = words; };
  const progress = (part) => {
    at("progress").hidden = part === null;
    at("progress").value = part ?? 0;
  };

  function fail(words) {
    at("error").textContent = words;
    at("error").hidden = false;
    progress(null);
    say("");
  }

  const wordsOf = (error) => error instanceof Refusal ? error.message : `That went wrong: ${error.message ?? error}`;

  function why() {
    if (location.protocol === "file:") return "Browsers do not let a page from a file load its model. Serve the folder, for example with python -m http.server, and open http://localhost:8000.";
    if (typeof WebAssembly !== "object") return "This browser has no WebAssembly, by which the page computes: it is switched off, or the browser is too old.";
    if (!WebAssembly.validate(SIMD)) return "This browser's WebAssembly has no vector instructions, which the page computes with. Take a newer browser.";
    return null;
  }

  async function load() {
    const response = await fetch(ABOUT_FILE, {cache: "no-cache"}).catch(() => null);
    if (!response?.ok) throw new Refusal(`${ABOUT_FILE} could not be loaded. Put all files of the page in one folder of the server.`);
    about = await response.json();
    const facts = [`Model: ${(about.files[MODEL_FILE].bytes / 1e6).toFixed(1)} MB, ${about.labels.length} labels`, ...about.facts];
    at("about").textContent = `${facts.join(". ")}.`;
    worker = new Worker("page.js");
    await new Promise((done, failed) => {
      worker.onerror = (event) => failed(new Refusal(`The page's worker could not start: ${event.message ?? "page.js could not be loaded"}.`));
      worker.onmessage = ({data}) => {
        if (data.kind === "loading") progress(data.part);
        if (data.kind === "ready") done();
        if (data.kind === "failed") failed(new Refusal(data.words));
      };
      worker.postMessage({kind: "load", about});
    });
    worker.onerror = null;
    worker.onmessage = answered;
    progress(null);
    say("Ready.");
    document.documentElement.dataset.ready = "yes";
  }

  async function offline() {
    if (!navigator.serviceWorker) return;
    await navigator.serviceWorker.register("page.js");
    await navigator.serviceWorker.ready;
    await ready;
    const cache = await caches.open(cacheName());
    const kept = (await cache.keys()).map((request) => request.url);
    if ([MODEL_FILE, RUNTIME_WASM].every((name) => kept.some((url) => url.includes(`/${name}?v=${about.files[name].sha256.slice(0, 16)}`)))) {
      document.documentElement.dataset.offline = "yes";
      if (at("status").textContent === "Ready.") say("Ready, from now on also without a network.");
    }
  }

  function begin(words) {
    turn++;
    player.pause();
    at("error").hidden = true;
    at("result").hidden = true;
    shown = null;
    say(words);
  }

  async function hearFile(file) {
    stop();
    begin(`Reading ${file.name} …`);
    const own = turn;
    try {
      await ready;
      const {channels, rate, notes} = await readSound(file);
      if (own !== turn) return;
      const heard = oneChannel(channels, about.channels), lost = channelNotes(channels, heard, about.channels, rate, file.name);
      hear(heard, rate, [...notes, ...lost], file.name, file, lost.length > 0);
    } catch (error) {
      if (own === turn) fail(wordsOf(error));
    }
  }

  function hear(samples, rate, notes, name, file, isLost = false) {
    if (!samples.length) throw new Refusal(`${name} holds no sound. Choose another file.`);
    if (samples.buffer.byteLength !== samples.byteLength || file) samples = samples.slice();
    shown = {name, notes, isLost, file: file ?? wavOf(samples, rate)};
    say(`Listening to ${name} …`);
    progress(0);
    worker.postMessage({kind: "hear", id: turn, samples, rate}, [samples.buffer]);
  }

  function answered({data}) {
    if (data.id !== turn) return;
    if (data.kind === "hearing") progress(data.part);
    if (data.kind === "failed") {
      stop();
      fail(data.words);
    }
    if (data.kind === "heard") show(data);
    if (data.kind === "glanced") glanced(data);
  }

  const MOST_ROWS = 10;

  function fill(scores) {
    const labels = [...about.labels.keys()].sort((a, b) => scores[b] - scores[a]), count = counting(scores, about);
    const rows = labels.slice(0, Math.max(MOST_ROWS, Math.min(count.size, 50))).map((label) => {
      const row = document.createElement("tr"), name = document.createElement("th"), meter = document.createElement("meter");
      name.scope = "row";
      name.textContent = about.labels[label];
      meter.value = scores[label];
      meter.setAttribute("aria-hidden", "true");
      row.append(name, document.createElement("td"), document.createElement("td"));
      row.children[1].append(meter);
      row.children[2].textContent = percent(scores[label]);
      row.classList.toggle("counts", count.has(label));
      return row;
    });
    at("labels").tBodies[0].replaceChildren(...rows);
    at("labels").hidden = false;
    const named = labels.filter((label) => count.has(label)).map((label) => about.labels[label]);
    return named.length ? named.slice(0, 5).join(", ") : "none of the labels";
  }

  function show({scores, stretches, silent, windows, sound, milliseconds}) {
    progress(null);
    const {name, notes, isLost, file} = shown, rate = about.sampling_rate, duration = sound.length / rate;
    const words = [...notes];
    if (silent && scores) words.push(`${silent} of ${windows} windows are silent and not scored.`);
    if (!scores && !isLost) words.push("This is silent: what a model says of silence means nothing. Check the microphone, or export the file again.");
    at("notes").textContent = words.join(" ");
    if (scores) at("best").textContent = fill(scores);
    else {
      at("best").textContent = isLost ? "nothing is left to hear" : "silence";
      at("labels").hidden = true;
    }
    draw(at("spectrogram"), spectrogramOf(sound, rate, Math.max(1, Math.min(1000, Math.ceil(duration * 100))), 96));
    lanes(stretches, duration, rate);
    at("ticks").replaceChildren(...[0, 0.25, 0.5, 0.75, 1].map((part) => Object.assign(document.createElement("span"), {textContent: seconds(part * duration)})));
    Object.assign(shown, {duration, sound, fallback: false});
    source(file);
    place(0);
    at("seek").setAttribute("aria-valuemax", duration.toFixed(2));
    const result = {
      file: name,
      seconds: duration,
      labels: scores ? [...about.labels.keys()].map((label) => ({label: about.labels[label], score: scores[label]})).sort((a, b) => b.score - a.score) : [],
      segments: stretches.map(({label, start, end, score}) => ({label: about.labels[label], start: start / rate, end: end / rate, score})),
      milliseconds,
    };
    if (at("save").href) URL.revokeObjectURL(at("save").href);
    at("save").href = URL.createObjectURL(new Blob([JSON.stringify(result, null, 1)], {type: "application/json"}));
    at("time").hidden = false;
    at("time").classList.remove("live");
    at("result").hidden = false;
    say(`${name}: ${at("best").textContent}. ${seconds(duration)} heard in ${seconds(milliseconds / 1000)}.`);
  }

  function source(file) {
    if (player.src) URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(file);
  }

  player.onerror = () => {
    if (!shown?.sound || shown.fallback) return;
    shown.fallback = true;
    source(wavOf(shown.sound, about.sampling_rate)); // what the player does not know: what the model heard of it
  };

  function lanes(stretches, duration, rate) {
    const byLabel = new Map();
    for (const stretch of stretches) byLabel.set(stretch.label, [...byLabel.get(stretch.label) ?? [], stretch]);
    at("lanes").replaceChildren(...[...byLabel].map(([label, own]) => {
      const lane = document.createElement("div"), name = document.createElement("p"), line = document.createElement("div");
      lane.className = "lane";
      lane.setAttribute("role", "listitem");
      name.textContent = about.labels[label];
      line.append(...own.map(({start, end, score}) => {
        const button = document.createElement("button"), [from, to] = [start / rate, end / rate];
        button.type = "button";
        button.style.left = `${100 * from / duration}%`;
        button.style.width = `${100 * (to - from) / duration}%`;
        button.title = `${about.labels[label]}, ${seconds(from)} to ${seconds(to)}, ${percent(score)}`;
        button.setAttribute("aria-label", `${button.title}; play from there`);
        button.onclick = () => play(from);
        return button;
      }));
      lane.append(name, line);
      return lane;
    }));
  }

  function place(value) {
    if (!shown?.duration) return;
    const where = Math.max(0, Math.min(value, shown.duration));
    at("head").style.left = `${100 * where / shown.duration}%`;
    at("seek").setAttribute("aria-valuenow", where.toFixed(2));
    at("seek").setAttribute("aria-valuetext", `${seconds(where)} of ${seconds(shown.duration)}`);
    return where;
  }

  async function play(from) {
    const where = place(from);
    if (where === undefined) return;
    const go = async () => {
      player.currentTime = where;
      await player.play().catch(() => {});
    };
    if (player.readyState) await go();
    else player.addEventListener("loadedmetadata", go, {once: true});
  }

  player.ontimeupdate = () => { if (!player.paused) place(player.currentTime); };
  player.onseeked = () => place(player.currentTime);

  at("seek").onclick = (event) => {
    const box = at("seek").getBoundingClientRect();
    if (shown?.duration) play((event.clientX - box.left) / box.width * shown.duration);
  };

  at("seek").onkeydown = (event) => {
    if (!shown?.duration) return;
    const now = Number(at("seek").getAttribute("aria-valuenow")), step = Math.max(shown.duration / 100, 0.01);
    const moved = {ArrowRight: now + step, ArrowUp: now + step, ArrowLeft: now - step, ArrowDown: now - step, PageUp: now + 10 * step, PageDown: now - 10 * step, Home: 0, End: shown.duration}[event.key];
    if (moved !== undefined) {
      const where = place(moved);
      if (player.readyState) player.currentTime = where;
    } else if (event.key === "Enter" || event.key === " ") {
      if (player.paused) play(now);
      else player.pause();
    } else return;
    event.preventDefault();
  };

  // The microphone.

  async function open(kind) {
    if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new Refusal("Browsers give a page the microphone only over https or on localhost. Open it there, or choose a file.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
    } catch (error) {
      if (error.name === "NotAllowedError") throw new Refusal("The browser was not allowed to use the microphone. Allow it for this page, and press the button again.");
      if (error.name === "NotFoundError") throw new Refusal("There is no microphone. Connect one, or choose a file.");
      throw new Refusal(`The microphone cannot be used: ${error.message}.`);
    }
    let context;
    try {
      context = new AudioContext();
      await context.audioWorklet.addModule("page.js");
      const node = new AudioWorkletNode(context, "microphone", {numberOfOutputs: 0});
      const opened = {kind, stream, context, node, blocks: [], length: 0, rate: context.sampleRate, busy: false, fresh: 0};
      node.port.onmessage = ({data}) => take(opened, data);
      context.createMediaStreamSource(stream).connect(node);
      stream.getAudioTracks()[0].onended = () => { if (microphone === opened) stop(); };
      return opened;
    } catch (error) {
      switchOff(stream, context);
      throw new Refusal(`The microphone is off, as what takes its sound could not be started: ${String(error.message ?? error).replace(/[.]?$/, ".")} Load the page again, or choose a file.`);
    }
  }

  function switchOff(stream, context) {
    stream.getTracks().forEach((track) => track.stop());
    context?.close();
  }

  function take(opened, block) {
    if (microphone !== opened) return;
    opened.blocks.push(block);
    opened.length += block.length;
    opened.fresh += block.length;
    if (opened.kind === "record") {
      const length = opened.length / opened.rate;
      at("elapsed").textContent = `${Math.floor(length)} s`;
      if (length >= LONGEST_MINUTES * 60) stop();
      return;
    }
    const needed = Math.ceil(about.window_samples / about.sampling_rate * opened.rate);
    while (opened.length - opened.blocks[0].length >= needed) opened.length -= opened.blocks.shift().length;
    if (opened.busy || opened.fresh < LIVE_SECONDS * opened.rate) return;
    opened.busy = true;
    opened.fresh = 0;
    const samples = joined(opened.blocks).slice(-needed);
    worker.postMessage({kind: "glance", id: turn, samples, rate: opened.rate}, [samples.buffer]);
  }

  function joined(blocks) {
    const all = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
    let filled = 0;
    for (const block of blocks) {
      all.set(block, filled);
      filled += block.length;
    }
    return all;
  }

  function glanced({scores, sound}) {
    if (!microphone) return;
    microphone.busy = false;
    if (scores) at("best").textContent = fill(scores);
    else {
      at("best").textContent = "silence";
      at("labels").hidden = true;
    }
    draw(at("spectrogram"), spectrogramOf(sound, about.sampling_rate, Math.max(1, Math.min(250, Math.floor(sound.length / about.shift_samples))), 96));
    say(`The microphone runs: ${at("best").textContent}`);
    at("time").hidden = false;
    at("time").classList.add("live");
    at("result").hidden = false;
  }

  function stop() {
    if (!microphone) return;
    const opened = microphone;
    microphone = null;
    at("elapsed").textContent = "";
    switchOff(opened.stream, opened.context);
    buttons();
    if (opened.kind === "listen") {
      turn++;
      say("The microphone is off.");
      return;
    }
    begin("");
    try {
      hear(joined(opened.blocks), opened.rate, [], "Recording");
    } catch (error) {
      fail(wordsOf(error));
    }
  }

  function buttons() {
    const [record, listen] = [at("record"), at("listen")], kind = microphone?.kind;
    record.textContent = kind === "record" ? "Stop recording" : "Record";
    record.classList.toggle("running", kind === "record");
    listen.textContent = kind === "listen" ? "Stop the microphone" : "Let the microphone run";
    listen.setAttribute("aria-pressed", String(kind === "listen"));
  }

  async function toggle(kind) {
    if (microphone) {
      const before = microphone.kind;
      stop();
      if (before === kind) return;
    }
    begin("Waiting for the microphone …");
    const own = turn;
    try {
      await ready;
      const opened = await open(kind);
      if (own !== turn) {
        switchOff(opened.stream, opened.context);
        return;
      }
      microphone = opened;
      at("lanes").replaceChildren();
      at("ticks").replaceChildren();
      at("notes").textContent = "";
      buttons();
      say(kind === "record" ? "Recording." : "The microphone runs.");
    } catch (error) {
      if (own === turn) fail(wordsOf(error));
    }
  }

  at("file").onchange = () => {
    const [file] = at("file").files;
    if (file) hearFile(file);
    at("file").value = ""; // so that the same one can be chosen again
  };
  document.ondragover = (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  };
  document.ondragleave = (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); };
  document.ondrop = (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) hearFile(file);
  };
  at("record").onclick = () => toggle("record");
  at("listen").onclick = () => toggle("listen");

  const refused = why();
  ready = refused ? Promise.reject(new Refusal(refused)) : load();
  ready.catch((error) => {
    fail(wordsOf(error));
    for (const id of ["file", "record", "listen"]) at(id).disabled = true;
  });
  offline().catch(() => {}); // without it, the page works as long as there is a network
}

if (typeof registerProcessor === "function") inWorklet();
else if (typeof ServiceWorkerGlobalScope === "function" && self instanceof ServiceWorkerGlobalScope) inServiceWorker();
else if (typeof document === "object") inPage();
else inWorker();
