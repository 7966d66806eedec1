//go:build unix && !linux

package chaos

import "syscall"

// procAttr is nothing special: a process whose standard input ends with the driver
// leaves by itself. One that is stopped just then stays until it is resumed.
func procAttr() *syscall.SysProcAttr { return nil }
