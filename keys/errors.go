package keys

// opError is what the public functions of this package wrap errors in, once: one that already is an
// opError contributes its text without a second "keys: ".
type opError struct {
	op  string
	err error
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &opError{op, err}
}

func (e *opError) Error() string { return "keys: " + e.text() }

func (e *opError) Unwrap() error { return e.err }

func (e *opError) text() string { return e.op + ": " + plain(e.err) }

// plain is the text of err without the package's name in front.
func plain(err error) string {
	if e, ok := err.(interface{ text() string }); ok {
		return e.text()
	}
	return err.Error()
}
