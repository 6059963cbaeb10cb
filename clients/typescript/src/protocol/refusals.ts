/** Which error a response is. */

import { CLASS_BY_CODE, type LeaseholdError, ServiceError, UnexpectedResponse } from "../errors.js";
import { decodeObject, type Json } from "../json.js";
import type { Response } from "./messages.js";

/** The error for a response with a status of 400 or more, for a redirect, or for a status that cannot be. */
export function refusalOf(response: Response): LeaseholdError {
  const to = response.headers.get("location");
  if (response.status >= 300 && response.status < 400 && to !== null) {
    const message = `HTTP ${response.status} redirects to ${to}, and redirects are not followed; is the URL right?`;
    return new UnexpectedResponse(message, response.status);
  }
  const body = bodyOf(response);
  if (typeof body?.error !== "string" || typeof body.message !== "string") {
    const message = `HTTP ${response.status} is not a response of the service; is a proxy in between?`;
    return new UnexpectedResponse(message, response.status);
  }
  const { error: code, message, request_id: requestId, trace_id: traceId, ...details } = body;
  const errorClass = Object.hasOwn(CLASS_BY_CODE, code) ? CLASS_BY_CODE[code] : undefined;
  return new (errorClass ?? ServiceError)(message, {
    code,
    status: response.status,
    requestId,
    traceId,
    details,
    ...retryAfterMember(response),
  });
}

function bodyOf(response: Response): Json {
  try {
    return decodeObject(response.text).value;
  } catch (error) {
    if (error instanceof SyntaxError) {
      return undefined;
    }
    throw error;
  }
}

function retryAfterMember(response: Response): { retryAfter?: number } {
  const seconds = retryAfter(response);
  return seconds === undefined ? {} : { retryAfter: seconds };
}

/** The seconds in `Retry-After`. A date, which the service does not send, counts as absent. */
export function retryAfter(response: Response): number | undefined {
  const text = response.headers.get("retry-after") ?? "";
  return /^\d+$/.test(text) ? Number(text) : undefined;
}
