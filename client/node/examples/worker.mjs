// A minimal flow worker. For each line on its standard input, a job, it calls an API with a
// connection as the platform has stored it, and prints the status that the API answers.
//
// CONNECTION holds the connection, for example
//   {"url": "https://api.example/orders", "account": "{{prod|ap_sep_v1|secret/data/shop/account}}",
//    "token": "{{prod|ap_sep_v1|secret/data/shop/token}}"}
import { createInterface } from 'node:readline';
import { open } from '@secret-sidecar/client';

const stored = JSON.parse(process.env.CONNECTION);
const client = await open(); // the socket is in SECRET_SIDECAR_SOCKET

// The connection is resolved anew for each job, so that a rotated secret reaches it. A token that is
// rotated at this very moment is refused: use then reads it from Vault and calls once more.
async function run(job) {
  const { url, account } = await client.resolveObject(stored);
  return client.use(stored.token, (token) => fetch(url, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'x-account': account },
    body: job,
  }));
}

for await (const job of createInterface({ input: process.stdin })) {
  const answer = await run(job);
  await answer.body?.cancel();
  console.log(job, answer.status);
}
await client.close();
