package virtual

import "time"

// MaxHosts is how many hosts one Net can have. The next Host fails with
// [ErrTooManyHosts].
const MaxHosts = 10000

// hostsPerOctet is how many hosts share the third octet of their public
// address: .1 to .250.
const hostsPerOctet = 250

// mappingLifetime is how long a NAT keeps a mapping that nothing was sent
// through. RFC 4787 §4.3, REQ-5 wants at least 2 minutes; received datagrams do
// not extend it (REQ-6 leaves that open).
const mappingLifetime = 2 * time.Minute
