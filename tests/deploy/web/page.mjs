// Classifies a picture in the browser, then answers the cases and tells the server what it found.

import { answerAll, plain } from "./answers.mjs";

let ort; // imported in main, so that it is told if that fails

const at = (id) => document.getElementById(id);

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

/** Draws a picture, and returns its pixels as the model takes them: `[height, width, 3]` uint8 RGB. */
async function draw(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  const canvas = Object.assign(at("picture"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return new ort.Tensor("uint8", rgb, [height, width, 3]);
}

/** Shows the most probable label, and a bar for each. */
function show(labels, probabilities) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  at("label").textContent = labels[best];
  at("probabilities").replaceChildren(
    ...labels.map((label, index) => {
      const percent = `${(probabilities[index] * 100).toFixed(1)} %`;
      const row = document.createElement("tr");
      row.className = index === best ? "best" : "";
      row.innerHTML = '<th scope="row"></th><td><div><span></span></div></td><td></td>';
      row.querySelector("th").textContent = label;
      row.querySelector("span").style.width = percent.replace(" ", "");
      row.lastElementChild.textContent = percent;
      return row;
    }),
  );
}

async function main() {
  ort = await import("./packages/onnxruntime-web/dist/ort.wasm.bundle.min.mjs");
  const cases = await (await get("cases/cases.json")).json();
  const { file, labels } = cases.models[0];
  const open = (name) => ort.InferenceSession.create(`cases/${name}`);
  const read = async (name) => (await get(`cases/${name}`)).arrayBuffer();
  const session = await open(file);

  async function classify(blob) {
    const image = await draw(blob);
    const began = performance.now();
    const outputs = await session.run({ image });
    const took = performance.now() - began;
    show(labels, [...outputs.probabilities.data]);
    const [height, width] = image.dims;
    at("about").textContent =
      `${width}×${height} pixels in ${took.toFixed(1)} ms, ${file} with onnxruntime-web ${ort.env.versions.web}`;
    return plain(outputs);
  }

  at("file").addEventListener("change", async ({ target }) => {
    if (target.files.length) await classify(target.files[0]).catch(complain);
  });
  const outputs = await classify(await (await get(`cases/${cases.picture.file}`)).blob());
  return {
    runtime: `onnxruntime-web ${ort.env.versions.web}`,
    on: navigator.userAgent.match(/\w*Chrome\/[\d.]+/)[0].replace("/", " "),
    page: { label: at("label").textContent, outputs },
    models: await answerAll(ort, cases, open, read),
  };
}

function complain(error) {
  at("error").textContent = String(error);
  return { error: String(error) };
}

const found = await main().catch(complain);
await fetch("result", { method: "POST", body: JSON.stringify(found) });
