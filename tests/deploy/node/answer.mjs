// Answers the cases that make.py wrote with onnxruntime-node:
//
//   node answer.mjs PACKAGES CASES RESULT.json
//
// PACKAGES is the folder that has node_modules.

import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import process from "node:process";

import { answerAll } from "../answers.mjs";

const [packages, directory, result] = process.argv.slice(2);
const ort = createRequire(resolve(packages, "package.json"))("onnxruntime-node");

const open = (file) => ort.InferenceSession.create(join(directory, file));
const read = async (file) => new Uint8Array(await readFile(join(directory, file))).buffer;

const cases = JSON.parse(await readFile(join(directory, "cases.json"), "utf8"));
const models = await answerAll(ort, cases, open, read);
const runtime = `onnxruntime-node ${ort.env.versions.node}`;
await writeFile(result, JSON.stringify({ runtime, on: `Node.js ${process.versions.node}`, models }));
