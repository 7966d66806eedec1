package chaos

import "syscall"

// procAttr makes the kernel kill a process when the driver has died, however it
// did, even if the process is stopped.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
