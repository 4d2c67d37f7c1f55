"""A stub: this module's text is in no snapshot."""


class SynthesisLayer:
    pass
