"""DP-SGD on top of the clipped sums of an engine (`mechanisms`): noise, masks, thresholds, steps.

Also the clipping functions, which the engines share.
"""
