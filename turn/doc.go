// Package turn is about relays, the TURN servers (RFC 8656) by which agents reach
// each other where no direct path exists.
package turn
