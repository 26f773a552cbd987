"""What a trained model does with clips: errors, saliency, behaviour, rejection, videos."""
