/**
 * Until when a lease certainly lasts, by a clock of this process.
 *
 * The time counts from before the request was sent, because the service may have granted or renewed the lease at any
 * moment until the response arrived. So the client never believes in a lease for longer than the service does.
 */
export class LeaseTerm {
  /** `sentAt`: the clock before the first attempt of the request that granted or renewed the lease. */
  constructor(
    readonly sentAt: number,
    readonly ttlSeconds: number,
  ) {}

  get deadline(): number {
    return this.sentAt + this.ttlSeconds;
  }

  /** The term after a renewal, which never shortens a lease. */
  renewed(sentAt: number, ttlSeconds: number): LeaseTerm {
    const term = new LeaseTerm(sentAt, ttlSeconds);
    return term.deadline > this.deadline ? term : this;
  }
}
