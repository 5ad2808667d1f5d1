// Frames from this browser: a video file, seeked frame by frame, or a webcam at a steady rate.

const WIDTH = 640;

function shoot(video, canvas) {
  const scale = Math.min(1, WIDTH / video.videoWidth);
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.87));
}

const happens = (target, name) => new Promise((done, fail) => {
  target.addEventListener(name, done, { once: true });
  target.addEventListener("error", () => fail(new Error("this browser cannot play that file")), { once: true });
});

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Calls send(jpeg, seconds) for every 1/fps seconds of the file; `run.stopped` ends it.
export async function watchFile(file, { fps, fast, canvas, send, run }) {
  const video = document.createElement("video");
  video.muted = true; video.preload = "auto"; video.src = URL.createObjectURL(file);
  try {
    await happens(video, "loadeddata");
    const started = performance.now();
    for (let time = 0; time < video.duration && !run.stopped; time += 1 / fps) {
      video.currentTime = Math.min(time, video.duration - 1e-3);
      await happens(video, "seeked");
      const jpeg = await shoot(video, canvas);
      if (!fast) await pause(started + 1000 * time - performance.now());
      if (!run.stopped) await send(jpeg, time);
    }
  } finally {
    URL.revokeObjectURL(video.src);
    video.removeAttribute("src");
  }
}

export async function watchWebcam({ fps, canvas, send, run }) {
  if (!navigator.mediaDevices) throw new Error("a webcam needs https, or this page on localhost");
  const media = await navigator.mediaDevices.getUserMedia({
    video: { width: { ideal: WIDTH }, facingMode: { ideal: "environment" } }, audio: false,
  });
  const video = document.createElement("video");
  video.muted = true; video.playsInline = true; video.srcObject = media;
  try {
    await video.play();
    const started = performance.now();
    while (!run.stopped) {
      const at = performance.now();
      await send(await shoot(video, canvas), (at - started) / 1000);
      await pause(1000 / fps - (performance.now() - at));
    }
  } finally {
    for (const track of media.getTracks()) track.stop();
  }
}
