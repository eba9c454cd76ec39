// Ages by @vladmandic/face-api, for benchmarks/real_ages.py: names of JPEG files on standard input, one JSON object a
// line on standard output. Run by `node` in a folder where these were installed:
//   npm install @vladmandic/face-api@1.7.15 @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0 jpeg-js@0.4.4
const fs = require('fs');
const path = require('path');
const own = require('module').createRequire(path.join(process.cwd(), 'package.json'));
const tf = own('@tensorflow/tfjs');
const wasm = own('@tensorflow/tfjs-backend-wasm');
const faceapi = own('@vladmandic/face-api/dist/face-api.node-wasm.js');
const jpeg = own('jpeg-js');

async function main() {
  wasm.setWasmPaths(`${path.join(process.cwd(), 'node_modules/@tensorflow/tfjs-backend-wasm/dist')}/`);
  wasm.setThreadsCount(1);
  await tf.setBackend('wasm');
  await tf.ready();
  const model = path.join(process.cwd(), 'node_modules/@vladmandic/face-api/model');
  for (const net of ['ssdMobilenetv1', 'faceLandmark68Net', 'ageGenderNet']) await faceapi.nets[net].loadFromDisk(model);
  const options = new faceapi.SsdMobilenetv1Options({ minConfidence: 0.1, maxResults: 10 });
  for (const file of fs.readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
    const { width, height, data } = jpeg.decode(fs.readFileSync(file), { useTArray: true, formatAsRGBA: false });
    const picture = tf.tensor3d(data, [height, width, 3], 'int32');
    const faces = await faceapi.detectAllFaces(picture, options).withFaceLandmarks().withAgeAndGender();
    tf.dispose(picture);
    faces.sort((a, b) => b.detection.box.area - a.detection.box.area);
    console.log(JSON.stringify({ file, age: faces.length ? faces[0].age : null }));
  }
}

main();
