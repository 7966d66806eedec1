package virtual

import "time"

// MaxHosts is how many hosts, relays among them, one Net can have. The next Host
// or Relay fails with [ErrTooManyHosts].
const MaxHosts = 10000

// maxAddresses is how many public addresses one Net hands out over its life, one
// for each host and one for each Move; none is used twice, so that what was sent
// to a former address reaches nobody. The next Host, Relay or Move fails with
// [ErrNoAddress].
const maxAddresses = 60000

// hostsPerOctet is how many hosts share the third octet of their public
// address: .1 to .250.
const hostsPerOctet = 250

// maxDelayed is how many datagrams one Net holds back for [Host.SetDelay], [Host.SetRate]
// and [Host.SetReorder]. What comes on top is dropped, as a router with full buffers does.
const maxDelayed = 1 << 16

// maxFlows is how many flows [Host.LimitFlows] or [Net.LimitFlows] counts. Nothing
// passes of further ones.
const maxFlows = 1 << 16

// maxNames is how many names one Net knows; [Net.SetName] refuses the next one.
const maxNames = 1000

// mappingLifetime is how long a NAT keeps a mapping that nothing was sent
// through. RFC 4787 §4.3, REQ-5 wants at least 2 minutes; received datagrams do
// not extend it (REQ-6 leaves that open).
const mappingLifetime = 2 * time.Minute
