// Answers the cases that make.py wrote with any of the JavaScript runtimes, whose API is the same.

const ARRAYS = { uint8: Uint8Array, int8: Int8Array, int32: Int32Array, int64: BigInt64Array, float32: Float32Array };

/** Outputs of onnxruntime as JSON holds them: by name, `{ dtype, shape, values }`. */
export function plain(outputs) {
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { type, dims, data }]) => [
      name,
      { dtype: type, shape: [...dims], values: [...data] },
    ]),
  );
}

/**
 * What every model answered, by its file; a model that the runtime refuses does not hide the others.
 *
 * @param ort the runtime
 * @param cases the content of cases.json
 * @param open a session for a model's file
 * @param read a file's content as an ArrayBuffer
 */
export async function answerAll(ort, cases, open, read) {
  const models = {};
  for (const model of cases.models) {
    try {
      models[model.file] = { answers: await answer(ort, model, await open(model.file), read) };
    } catch (error) {
      models[model.file] = { error: String(error) };
    }
  }
  return models;
}

async function answer(ort, model, session, read) {
  const answers = {};
  for (const { name, inputs } of model.cases) {
    const feeds = {};
    for (const input of inputs) {
      const values = new ARRAYS[input.dtype](await read(input.file));
      feeds[input.name] = new ort.Tensor(input.dtype, values, input.shape);
    }
    answers[name] = plain(await session.run(feeds));
  }
  await session.release();
  return answers;
}
