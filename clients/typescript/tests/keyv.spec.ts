/** The test suite that Keyv has for its storage adapters. It needs vitest. */

import keyvTestSuite, { keyvIteratorTests } from "@keyv/test-suite";
import Keyv from "keyv";
import { KeyvLeasehold } from "leasehold/keyv";
import * as vitest from "vitest";

import { client, memoryServer } from "./server.js";

const server = await memoryServer();
vitest.afterAll(() => server.end());

const store = (): KeyvLeasehold => new KeyvLeasehold(client(server));

keyvTestSuite(vitest, Keyv, store);
keyvIteratorTests(vitest, Keyv, store);
