// How loud something is.

// Root of the mean of the squares of what an AnalyserNode hears now; 0 to 1.
export function rms(analyser) {
  if (!analyser) return 0;
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
}

// The same as an ear has it: 0 at -60 dB and below, 1 at -6 dB and above.
export function loudness(value) {
  return Math.max(0, Math.min(1, (20 * Math.log10(value + 1e-9) + 60) / 54));
}
